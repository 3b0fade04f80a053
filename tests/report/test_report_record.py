import json

import numpy

from neuronx.report.evaluation import versions, write_record


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
