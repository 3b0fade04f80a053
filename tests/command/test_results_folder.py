"""A run writes into a folder of its own and overwrites nothing else."""

import pytest

from neuronx.command.results_folder import claim, leave
from neuronx.errors import UserError

CONFIG = "seed: 0\nckpt_path: null\nlayers: layer4\n"


def test_a_new_or_empty_folder_is_claimed(tmp_path):
    claim(tmp_path / "a" / "b", CONFIG)
    assert (tmp_path / "a" / "b" / "config.yaml").read_text() == CONFIG
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").touch()
    claim(tmp_path / "empty", CONFIG)


@pytest.mark.parametrize("name", ["scores.csv", "notes.txt", "explanations/mine.csv", "config.yaml"])
def test_files_of_the_users_are_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine: [\n")
    with pytest.raises(UserError, match=rf"holds files already \({name.split('/')[0]}\)"):
        claim(tmp_path, CONFIG)
    assert (tmp_path / name).read_text() == "mine: [\n"


def test_only_the_same_run_goes_on_in_its_folder(tmp_path):
    claim(tmp_path, CONFIG)
    (tmp_path / "last.ckpt").touch()
    claim(tmp_path, CONFIG)
    claim(tmp_path, CONFIG.replace("ckpt_path: null", "ckpt_path: last.ckpt"))
    with pytest.raises(UserError, match="Only the same command"):
        claim(tmp_path, CONFIG.replace("seed: 0", "seed: 1"))


def test_a_file_or_a_place_without_folders_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"hydra.run.dir=.*cannot be written: .*; name another folder"):
            claim(place, CONFIG)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_that_wrote_nothing_leaves_no_folder(tmp_path):
    claim(tmp_path / "run", CONFIG)
    leave(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    claim(tmp_path / "run", CONFIG)
    (tmp_path / "run" / "scores.csv").touch()
    leave(tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").exists()
