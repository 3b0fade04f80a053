"""Training the generator on a handful of pictures: it runs, resumes, and leaves files that load."""

import dataclasses
import json
from functools import partial

import pytest
import torch
from lightning import Callback, Trainer

from neuronx import checkpoints
from neuronx.data.latents import latent_probe
from neuronx.errors import UserError
from neuronx.world import generator
from neuronx.world import networks as shapes
from neuronx.world.training.generator import Critic, GeneratorTask

TASK = GeneratorTask(
    name="shapes_gan",
    critic="shapes_resnet",
    witness="shapes_resnet",
    latent_dim=4,
    channels=[8, 8, 8, 8],
    layers={"layer2": "avg", "layer3": "max"},
    epochs=2,
    images=4,
    batch_size=2,
    lr=1e-3,
    naming=0.2,
    seed=1,
    precision="32-true",
    held_out=20,
)


class Stop(Callback):
    """Ends a run after its first epoch, as a crash would."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: object) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("power cut")


def crashing(trainer, **options):
    return trainer(**{**options, "callbacks": [*options.get("callbacks", ()), Stop()]})


def test_a_resumed_run_ends_as_the_undisturbed_one_and_its_files_load(trainer, tmp_path):
    whole = TASK.run(trainer, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        TASK.run(partial(crashing, trainer), tmp_path / "crashed")
    last = tmp_path / "crashed" / "last.ckpt"
    resumed = TASK.run(trainer, tmp_path / "resumed", str(last))
    (state, card), (again, other) = checkpoints.read(whole), checkpoints.read(resumed)
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert card["figures"] == other["figures"] and other["training"]["images seen"] == 8
    with pytest.raises(UserError, match="4 steps, this one has 6"):
        dataclasses.replace(TASK, epochs=3).run(trainer, tmp_path / "longer", str(last))
    saved = torch.load(last, weights_only=True)
    assert all(isinstance(value, (int, float, str)) for value in saved["hyper_parameters"].values())
    assert card["command"] == "python train.py generator=shapes_gan ship=true"
    assert card["figures"]["Fréchet distance of rendered from rendered pictures"] >= 0
    target = generator.load(whole)
    assert target.layers == TASK.layers and target.name == "shapes_gan"
    pictures = latent_probe(target, 10).load(range(10))
    assert (
        pictures.shape == (10, 3, 64, 64)
        and json.loads(whole.with_suffix(".json").read_text())["training"]["steps"] == 4
    )


def test_the_critic_starts_as_the_classifier_does():
    target = shapes.load("shapes_resnet")
    pictures = torch.rand(2, 3, 64, 64)
    scores, logits = Critic("shapes_resnet").eval()(2 * pictures - 1, torch.tensor([1, 2]))
    # (x - 1/2) / (1/4) of pictures in [0, 1].
    torch.testing.assert_close(logits, target.module(4 * (pictures - 0.5)), atol=1e-3, rtol=1e-3)
    assert len(scores) == 5 and all(score.shape[0] == 2 and score.ndim == 2 for score in scores)
