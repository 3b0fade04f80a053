import io
import json

import numpy
import pytest
from rich.console import Console

from neuronx.report.evaluation import Activity, Evaluation, plus_minus, show, versions, write, write_record
from neuronx.types import Comparison, Explanation, Score, Unit

NAN = float("nan")


def score(method, index, value, **more):
    named = {"target": "shapes_resnet", "pool": "avg", "score": "correlation", "sem": NAN, "n": 1000, "status": "ok"}
    named |= {"explanation": "dog", "judge": "shapes_judge", "images": "shapes/test:1000"}
    return Score(unit=Unit("layer3", index), method=method, value=value, **(named | more))


def evaluation(**more):
    means = {"le_clip": 0.5, "clip_dissect": 0.25, "shuffled-le_clip": 0.0, "random-le_clip": -0.01, "ceiling": 0.75}
    scores = [score(method, index, mean + 0.1 * index) for method, mean in means.items() for index in (-1, 0, 1)]
    scores.append(score("clip_dissect", 2, NAN, status="inactive"))
    compared = [
        Comparison("shapes_resnet", "layer3", "correlation", "le_clip", "clip_dissect", 0.25, 0.2, 0.3, 3),
        Comparison("shapes_resnet", "layer3", "correlation", "le_clip", "shuffled-le_clip", 0.5, -0.1, 0.6, 3),
    ]
    named = {"explanations": {}, "scores": scores, "comparisons": compared}
    return Evaluation(**(named | more))


def shown(what, width=80, **console):
    out = io.StringIO()
    show(what, "/results/run[1]", Console(file=out, width=width, **console))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_leaderboard_in_plain_text(width):
    lines = [line.rstrip() for line in shown(evaluation(), width).splitlines()]
    assert max(map(len, lines)) <= width
    assert lines[1:] == [
        "shapes_resnet · layer3 (avg)",
        "correlation on shapes/test:1000, judge shapes_judge; passes both sanity checks",
        "",
        "method                  mean ± sem                           units  inactive",
        "ceiling            0.7500 ± 0.0577  ████████████████       3 (few)",
        "le_clip            0.5000 ± 0.0577  ██████████▋            3 (few)",
        "clip_dissect       0.2500 ± 0.0577  █████▎            3 of 4 (few)         1",
        "shuffled-le_clip   0.0000 ± 0.0577                         3 (few)",
        "random-le_clip    -0.0100 ± 0.0577                         3 (few)",
        "",
        "on the same units       difference            interval    units",
        "le_clip − clip_dissect     +0.2500  [+0.2000, +0.3000]  3 (few)",
        "le_clip − shuffled         +0.5000  [-0.1000, +0.6000]  3 (few)  unclear",
        "Files: /results/run[1]",
    ]


@pytest.mark.parametrize(
    ("low", "high", "clear"),
    [(0.1, 0.3, True), (-0.3, -0.1, True), (-0.1, 0.1, False), (0.0, 0.3, False), (-0.3, 0.0, False)],
)
def test_a_difference_is_clear_when_its_interval_leaves_out_zero(low, high, clear):
    compared = Comparison("shapes_resnet", "layer3", "correlation", "le_clip", "clip_dissect", 0.0, low, high, 12)
    (line,) = [line for line in shown(evaluation(comparisons=[compared])).splitlines() if "−" in line]
    assert line.rstrip().endswith("12" if clear else "unclear")


def test_the_difference_of_one_unit_has_no_interval():
    compared = Comparison("shapes_resnet", "layer3", "correlation", "a", "b", 0.5, NAN, NAN, 1, "none")
    (line,) = [line for line in shown(evaluation(comparisons=[compared])).splitlines() if "−" in line]
    assert line.split() == ["a", "−", "b", "+0.5000", "—", "1", "(few)", "unclear"]


def test_a_mean_says_over_how_many_of_how_many_units_it_is():
    statuses = [*["ok"] * 12, "unjudged", "untested", "untested", "broken"]
    scores = [score("mine", k, 0.5 if one == "ok" else NAN, status=one) for k, one in enumerate(statuses)]
    lines = shown(evaluation(scores=scores, comparisons=[])).splitlines()
    assert next(line.split() for line in lines if line.startswith("method"))[4:] == [
        "units", "broken", "unjudged", "untested"
    ]  # fmt: skip
    assert next(line.split() for line in lines if line.startswith("mine"))[-6:] == ["12", "of", "16", "1", "1", "2"]


def test_dead_units_have_a_line_with_the_means_without_them():
    dead = Activity("shapes_resnet", "layer3", 4, frozenset({Unit("layer3", -1)}))
    text = " ".join(shown(evaluation(activity=[dead])).split())
    assert (
        "dead (never above 0.01): 1 of 4 units (25.0%); without them "
        "le_clip 0.5500 (with 0.5000), clip_dissect 0.3000 (with 0.2500)"
    ) in text
    everyone = Activity("shapes_resnet", "layer3", 3, frozenset(Unit("layer3", k) for k in (-1, 0, 1)))
    assert "3 of 3 units (100.0%); there are no others\n" in shown(evaluation(activity=[everyone]))
    scored = Activity("shapes_resnet", "layer3", 4, frozenset(Unit("layer3", k) for k in (-1, 0, 1)))
    assert "3 of 4 units (75.0%); without them no unit has a score\n" in shown(evaluation(activity=[scored]))
    alive = Activity("shapes_resnet", "layer3", 4, frozenset())
    assert "0 of 4 units (0.0%)\n" in shown(evaluation(activity=[alive]))


def test_with_several_judges_comparisons_stand_with_the_first_and_agreement_at_the_end():
    both = evaluation()
    both = evaluation(
        scores=[*both.scores, score("le_clip", 0, 0.125, judge="labels")], agreement=["they agree: rho 0.5"]
    )
    text = shown(both)
    assert text.count("on the same units") == 1
    assert text.index("on the same units") < text.index("judge labels") < text.index("they agree: rho 0.5")


def test_names_are_shown_as_they_are_and_long_ones_cut():
    name = "[red]" + "x" * 90
    text = shown(evaluation(scores=[score(name, 0, 0.5)], comparisons=[]))
    assert "[red]xxx" in text and "…" in text and "0.5000" in text


def test_a_run_that_only_explains_shows_where_its_files_are():
    assert shown(evaluation(scores=[], comparisons=[])).strip() == "Files: /results/run[1]"


def test_a_terminal_without_unicode_gets_question_marks():
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=80)
    show(evaluation(), None, console)
    console.file.flush()
    assert b"le_clip            0.5000 ? 0.0577" in raw.getvalue()


def test_colours_only_on_a_terminal():
    assert "\x1b[" not in shown(evaluation())
    assert "\x1b[" in shown(evaluation(), force_terminal=True, color_system="standard")


def test_a_mean_without_error_and_no_mean():
    assert (plus_minus(0.37721, 0.00171), plus_minus(0.5, NAN), plus_minus(NAN, NAN)) == (
        "0.3772 ± 0.0017",
        "0.5000",
        "—",
    )


def test_the_files_of_a_run(tmp_path):
    plain = Explanation(Unit("layer3", 0), (("dog", 1.0),))
    other = Explanation(Unit("blocks.1", 0), (("cat", 1.0),))
    found = evaluation(explanations={("shapes_resnet", "le_clip"): [plain, other], ("vit/16", "pure"): [plain]})
    paths = write(found, tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in paths) == [
        "comparisons.csv",
        "explanations/shapes_resnet_blocks.1_le_clip.csv",
        "explanations/shapes_resnet_layer3_le_clip.csv",
        "explanations/vit-16_layer3_pure.csv",
        "leaderboard.csv",
        "scores.csv",
    ]
    before = {path: path.read_bytes() for path in paths}
    assert {path: path.read_bytes() for path in write(found, tmp_path)} == before
    text = b"".join(before.values()).decode()
    assert str(tmp_path) not in text and "20" + "26" not in text
    assert write(evaluation(scores=[], comparisons=[]), tmp_path / "empty") == []


def test_the_record_says_what_ran_with_what(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["evaluate.py", "explain=[milan, pure]"])
    path = write_record(tmp_path, "seed: 0\n", seed=0, fingerprints={"data": "abc"})
    record = json.loads(path.read_text())
    assert path.name == "run.json"
    assert (tmp_path / "config.yaml").read_text() == "seed: 0\n"
    assert record["seed"] == 0 and record["fingerprints"] == {"data": "abc"}
    assert record["versions"]["numpy"] == numpy.__version__
    assert record["command"] == "evaluate.py 'explain=[milan, pure]'"
    assert not (write_record(tmp_path / "b").parent / "config.yaml").exists()


def test_versions_name_what_results_depend_on():
    assert {"neuronx", "python", "torch", "lightning"} <= set(versions())
