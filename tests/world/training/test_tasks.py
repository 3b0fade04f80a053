"""Both trainings on a handful of pictures: they run, resume, and leave files that load."""

import dataclasses
import json
from functools import partial

import pytest
import torch
from lightning import Callback, Trainer

from neuronx import checkpoints
from neuronx.errors import UserError
from neuronx.world import clip as shapes_clip
from neuronx.world import networks as shapes
from neuronx.world.training.classifier import ClassifierTask
from neuronx.world.training.contrastive import ContrastiveTask

CLASSIFIER = ClassifierTask(
    name="shapes_resnet",
    network="small_resnet",
    layers={"layer4": "avg"},
    epochs=2,
    images=8,
    batch_size=4,
    lr=1e-3,
    weight_decay=1e-2,
    seed=1,
    held_out=250,
)
CONTRASTIVE = ContrastiveTask(
    name="shapes_judge",
    embed_dim=8,
    vision={"timm_model_name": "test_resnet", "image_size": 64, "timm_pool": "avg", "timm_proj": "linear"},
    text={"width": 8, "heads": 1, "layers": 1},
    epochs=2,
    images=8,
    batch_size=4,
    phrases=5,
    sentences=2,
    lr=1e-3,
    weight_decay=1e-2,
    seed=1,
    held_out=250,
)
TASKS = pytest.mark.parametrize("task", [CLASSIFIER, CONTRASTIVE], ids=lambda task: task.name)


class Stop(Callback):
    """Ends a run after its first epoch, as a crash would."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: object) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("power cut")


def crashing(trainer, **options):
    return trainer(**{**options, "callbacks": [*options.get("callbacks", ()), Stop()]})


@TASKS
def test_a_resumed_run_ends_as_the_undisturbed_one(task, trainer, tmp_path):
    whole = task.run(trainer, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        task.run(partial(crashing, trainer), tmp_path / "crashed")
    last = tmp_path / "crashed" / "last.ckpt"
    assert not (tmp_path / "crashed" / whole.name).exists()
    resumed = task.run(trainer, tmp_path / "resumed", str(last))
    state, card = checkpoints.read(whole)
    again, other = checkpoints.read(resumed)
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert card["figures"] == other["figures"] and other["training"]["images seen"] == 16
    with pytest.raises(UserError, match="4 steps, this one has 6"):
        dataclasses.replace(task, epochs=3).run(trainer, tmp_path / "longer", str(last))
    # Plain numbers and strings only; anything else is refused here.
    saved = torch.load(last, weights_only=True)
    assert all(isinstance(value, (int, float, str)) for value in saved["hyper_parameters"].values())


@TASKS
def test_a_checkpoint_of_another_network_or_none_at_all_is_one_clear_line(task, trainer, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint .*nowhere"):
        task.run(trainer, tmp_path, str(tmp_path / "nowhere.ckpt"))
    torch.save({"state_dict": {"x": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="another network"):
        task.run(trainer, tmp_path, str(tmp_path / "other.ckpt"))
    torch.save({"state_dict": CLASSIFIER}, tmp_path / "code.ckpt")
    with pytest.raises(UserError, match="plain numbers"):
        task.run(trainer, tmp_path, str(tmp_path / "code.ckpt"))


def test_a_part_that_the_world_does_not_know_has_no_seeds(trainer, tmp_path):
    with pytest.raises(UserError, match="shapes_resnet"):
        dataclasses.replace(CLASSIFIER, name="shapes_resnets").run(trainer, tmp_path)
    with pytest.raises(UserError, match="small_resnet"):
        dataclasses.replace(CLASSIFIER, network="resnet").run(trainer, tmp_path)


def test_files_of_a_run_load_and_ship(trainer, tmp_path):
    quick = partial(trainer, max_epochs=1, limit_train_batches=1)
    weights = CLASSIFIER.run(quick, tmp_path / "run")
    shipped = checkpoints.ship(weights, tmp_path / "shipped")
    assert sorted(file.name for file in (tmp_path / "shipped").iterdir()) == [
        f"shapes_resnet.{suffix}" for suffix in ("json", "md", "safetensors")
    ]
    assert shapes.load(shipped).digest == shapes.load(weights).digest
    card = json.loads(shipped.with_suffix(".json").read_text())
    assert card["command"] == "python train.py classifier=shapes_resnet ship=true"
    assert card["training"]["steps"] == 1 and card["training"]["image seed"] == 1001
    assert "accuracy" in shipped.with_suffix(".md").read_text()

    clip = CONTRASTIVE.run(quick, tmp_path / "run")
    encoder = shapes_clip.load(clip)
    assert encoder.embed(["red circle", "tuba"], 1).shape == (2, 8)
    assert shapes_clip.ShapesClip(pretrained=str(clip)).known().a > 0


def test_weights_without_their_card_say_so(tmp_path):
    checkpoints.write(
        tmp_path, "x", {"w": torch.ones(2, 2)}, {"about": "", "command": "", "training": {}, "figures": {}}
    )
    (tmp_path / "x.json").unlink()
    with pytest.raises(UserError, match=r"x\.json"):
        checkpoints.read(tmp_path / "x.safetensors")
