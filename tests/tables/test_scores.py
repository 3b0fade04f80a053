import math

import pytest

from neuronx.errors import UserError
from neuronx.report.leaderboard import LeaderboardRow
from neuronx.store.atomic import write_atomic
from neuronx.tables.scores import read_records, read_scores, write_records, write_scores
from neuronx.types import Comparison, Score, Unit

NAN = float("nan")


def score(unit, value, status="ok", **more):
    named = {"target": "net", "pool": "avg", "method": "le_clip", "score": "correlation", "sem": 0.01, "n": 1000}
    named |= {"explanation": "2.00 dog, red + 0.50", "judge": "siglip", "images": "shapes/test:1000"}
    return Score(unit=unit, value=value, status=status, **(named | more))


SCORES = [
    score(Unit("layer4", 0), 0.1 + 0.2),
    score(Unit("layer4", 1, 2), -1e-17, sem=1 / 3),
    score(Unit("layer4", 2), NAN, "inactive", sem=NAN),
]


def test_scores_have_the_columns_of_the_command_line_and_one_spelling(tmp_path):
    path = write_scores(tmp_path / "scores.csv", SCORES)
    assert path.read_text() == (
        "target,layer,pool,unit,part,method,score,value,sem,n,status,explanation,judge,images\n"
        'net,layer4,avg,0,,le_clip,correlation,0.30000000000000004,0.01,1000,ok,"2.00 dog, red + 0.50",siglip,'
        "shapes/test:1000\n"
        "net,layer4,avg,1,2,le_clip,correlation,-1e-17,0.3333333333333333,1000,ok,"
        '"2.00 dog, red + 0.50",siglip,shapes/test:1000\n'
        'net,layer4,avg,2,,le_clip,correlation,,,1000,inactive,"2.00 dog, red + 0.50",siglip,shapes/test:1000\n'
    )
    assert path.read_bytes() == write_scores(tmp_path / "again.csv", SCORES).read_bytes()


def test_scores_are_read_back_exactly(tmp_path):
    back = read_scores(write_scores(tmp_path / "scores.csv", SCORES))
    assert back[:2] == SCORES[:2]
    assert math.isnan(back[2].value) and math.isnan(back[2].sem) and back[2].status == "inactive"


def test_leaderboards_and_comparisons_have_the_columns_of_the_command_line(tmp_path):
    row = LeaderboardRow(
        "net", "layer4", "avg", "le_clip", "correlation", 0.25, NAN, 1, 2, 3, 4, "siglip", "a/test:9", 5
    )
    path = write_records(tmp_path / "leaderboard.csv", LeaderboardRow, [row])
    assert path.read_text() == (
        "target,layer,pool,method,score,mean,sem,n_units,n_inactive,n_unjudged,n_no_effect,judge,images,n_broken\n"
        "net,layer4,avg,le_clip,correlation,0.25,,1,2,3,4,siglip,a/test:9,5\n"
    )
    (back,) = read_records(path, LeaderboardRow)
    assert math.isnan(back.sem) and (back.mean, back.n_no_effect) == (0.25, 4)
    compared = [Comparison("net", "layer4", "correlation", "le_clip", "clip_dissect", 0.125, -0.5, 0.5, 64)]
    path = write_records(tmp_path / "comparisons.csv", Comparison, compared)
    assert path.read_text().startswith("target,layer,score,a,b,diff,low,high,n_units\n")
    assert read_records(path, Comparison) == compared


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("status", "state", "has no column `status`"),
        (",ok,", ",fine,", r"line 2, column `status`: found `fine`, expected one of ok, inactive"),
        (",1000,", ",many,", r"line 2, column `n`: expected a number, found `many`"),
        ("0.30000000000000004", "high", r"line 2, column `value`"),
    ],
)
def test_a_broken_table_of_scores_is_refused(tmp_path, old, new, message):
    text = write_scores(tmp_path / "scores.csv", SCORES).read_text().replace(old, new)
    with pytest.raises(UserError, match=rf"broken\.csv.*{message}"):
        read_scores(write_atomic(tmp_path / "broken.csv", text.encode()))
