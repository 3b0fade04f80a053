from neuronx.report.evaluation import LeaderboardRow
from neuronx.tables.csv import write_records, write_scores
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


def test_leaderboards_and_comparisons_have_the_columns_of_the_command_line(tmp_path):
    row = LeaderboardRow(
        "net", "layer4", "avg", "le_clip", "correlation", 0.25, NAN, 1, 2, 3, 4, "siglip", "a/test:9", 5, 6, "passes"
    )
    path = write_records(tmp_path / "leaderboard.csv", LeaderboardRow, [row])
    assert path.read_text() == (
        "target,layer,pool,method,score,mean,sem,n_units,n_inactive,n_unjudged,n_no_effect,judge,images,n_broken,"
        "n_untested,sanity,n_rare\n"
        "net,layer4,avg,le_clip,correlation,0.25,,1,2,3,4,siglip,a/test:9,5,6,passes,0\n"
    )
    compared = [Comparison("net", "layer4", "correlation", "le_clip", "clip_dissect", 0.125, -0.5, 0.5, 64)]
    path = write_records(tmp_path / "comparisons.csv", Comparison, compared)
    assert path.read_text() == (
        "target,layer,score,a,b,diff,low,high,n_units,interval\n"
        "net,layer4,correlation,le_clip,clip_dissect,0.125,-0.5,0.5,64,bootstrap\n"
    )
