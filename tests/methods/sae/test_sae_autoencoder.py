"""Sparse autoencoders learn planted directions, fold their scaling, and go on after a crash as if nothing had been."""

import json
from functools import partial

import pytest
import torch
from lightning import Callback
from torch import Tensor
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.methods.sae.autoencoder import KINDS, SparseAutoencoder
from neuronx.methods.sae.measures import monosemanticity, reconstruction
from neuronx.methods.sae.rows import RowBatches, rows_of
from neuronx.methods.sae.task import SaeTask
from neuronx.store import checkpoints
from neuronx.targets.dictionary import load
from neuronx.world import networks
from neuronx.world.pictures.probe import ShapesProbe

PLAIN = {
    "kind": "topk",
    "expansion": 1,
    "k": 4,
    "epochs": 2,
    "steps": 4,
    "batch_size": 64,
    "lr": 3e-3,
    "l1": 0.05,
    "aux": 1 / 32,
    "dead_after": 100,
    "prefixes": 2,
    "seed": 1,
}


def planted(count: int = 4000, units: int = 12, latents: int = 24, k: int = 3) -> tuple[Tensor, Tensor]:
    """Rows (N, 1, D) that are sums of k of some directions (M, D), far from the origin and large."""
    g = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(latents, units, generator=g))
    chosen = torch.rand(count, latents, generator=g).topk(k).indices
    strengths = torch.zeros(count, latents).scatter(1, chosen, 1 + torch.rand(count, k, generator=g))
    return 50 * (strengths @ directions)[:, None] + 200, directions


def fitted(trainer, kind: str, steps: int = 300, **options) -> tuple[SparseAutoencoder, Tensor, Tensor]:
    rows, directions = planted()
    torch.manual_seed(0)
    module = SparseAutoencoder(12, 24, kind, 3, **options)
    module.standardise(rows, torch.arange(3000))
    trainer(max_epochs=1).fit(module, datamodule=RowBatches(rows, torch.arange(3000), 256, steps, 0))
    return module.eval(), rows[3000:, 0], directions


@pytest.mark.parametrize("kind", KINDS)
def test_planted_directions_are_explained_by_latents_in_the_layers_units(trainer, kind):
    options = {"l1": 0.01, "aux": 0.0} if kind == "relu" else {"prefixes": 2} if kind == "matryoshka" else {}
    module, held_out, _ = fitted(trainer, kind, **options)
    weights = module.folded()
    task = SaeTask(**{**PLAIN, "kind": kind, "k": 3})
    dictionary = task.dictionary(weights)
    with torch.no_grad():
        torch.testing.assert_close(dictionary(held_out), module(held_out)[1] * module.scale, atol=2e-3, rtol=1e-3)
    found = reconstruction(dictionary, weights, held_out)
    assert found["explained_variance"] > (0.75 if kind == "matryoshka" else 0.85)
    assert found["l0"] == pytest.approx(3, abs=0.01) if kind == "topk" else 1 < found["l0"] < 24
    torch.testing.assert_close(weights["W_dec"].norm(dim=1), torch.ones(24))


def test_a_frozen_decoder_stays_and_its_encoder_learns(trainer):
    module, _, _ = fitted(trainer, "topk", 20, frozen=True)
    torch.manual_seed(0)
    fresh = SparseAutoencoder(12, 24)
    assert torch.equal(module.decoder, fresh.decoder) and not torch.equal(module.encoder, fresh.encoder)


def test_latents_that_never_fire_come_back(trainer):
    rows, _ = planted()
    for aux, alive in ((0.0, False), (0.5, True)):
        torch.manual_seed(0)
        module = SparseAutoencoder(12, 24, "topk", 3, aux=aux, dead_after=500)
        module.standardise(rows, torch.arange(3000))
        module.encoder_bias.data[:8] = -5.0
        trainer(max_epochs=1).fit(module, datamodule=RowBatches(rows, torch.arange(3000), 256, 300, 0))
        assert bool((module.idle[:8] < 500).any()) == alive


def test_batches_do_not_depend_on_what_ran_before():
    rows = torch.arange(60.0).view(10, 3, 2)
    batches = RowBatches(rows, torch.tensor([1, 4]), 8, 5, 3)
    assert torch.equal(batches.draw(7), RowBatches(rows, torch.tensor([1, 4]), 8, 50, 3).draw(7))
    assert set(batches.draw(0)[:, 0].tolist()) <= {6.0, 8.0, 10.0, 24.0, 26.0, 28.0}
    assert not torch.equal(batches.draw(0), batches.draw(1))


def test_reconstruction_and_monosemanticity_by_hand():
    weights = {"W_enc": torch.eye(3), "b_enc": torch.zeros(3), "W_dec": torch.eye(3), "b_dec": torch.zeros(3)}
    rows = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 0]])
    dictionary = SaeTask(**{**PLAIN, "k": 1}).dictionary(weights)
    assert reconstruction(dictionary, weights, rows) == pytest.approx(
        {"explained_variance": 1.0, "l0": 2 / 3, "dead_share": 1 / 3}
    )
    latents, embeddings = torch.rand(7, 2), torch.randn(7, 5)
    latents[:, 1] = 0.0
    a = (latents[:, 0] - latents[:, 0].min()) / (latents[:, 0].max() - latents[:, 0].min())
    e = F.normalize(embeddings)
    pairs = [(n, m) for n in range(7) for m in range(7) if n != m]
    expected = sum(a[n] * a[m] * (e[n] @ e[m]) for n, m in pairs) / sum(a[n] * a[m] for n, m in pairs)
    found = monosemanticity(latents, embeddings)
    assert float(found[0]) == pytest.approx(float(expected), rel=1e-5) and found[1].isnan()


@pytest.fixture(scope="module")
def world():
    return networks.load("shapes_resnet", {"layer4": "avg"}), ShapesProbe(120)


class Stop(Callback):
    """Ends a run after its first epoch, as a crash would."""

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("power cut")


def crashing(trainer, **options):
    return trainer(**{**options, "callbacks": [*options.get("callbacks", ()), Stop()]})


@pytest.mark.parametrize("kind", ["topk", "matryoshka"])
def test_a_resumed_run_ends_as_the_undisturbed_one(trainer, world, tmp_path, kind):
    target, probe = world
    task = SaeTask(**{**PLAIN, "kind": kind})
    whole = task.run(target, "layer4", probe, trainer, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        task.run(target, "layer4", probe, partial(crashing, trainer), tmp_path / "crashed")
    last = tmp_path / "crashed" / "last.ckpt"
    resumed = task.run(target, "layer4", probe, trainer, tmp_path / "resumed", str(last))
    assert whole.read_bytes() == resumed.read_bytes()
    with pytest.raises(UserError, match="8 steps, this one has 12"):
        SaeTask(**{**PLAIN, "kind": kind, "epochs": 3}).run(target, "layer4", probe, trainer, tmp_path, str(last))


@pytest.mark.parametrize("kind", KINDS)
def test_both_files_are_read_and_give_the_same_latents(trainer, world, tmp_path, kind):
    target, probe = world
    weights = SaeTask(**{**PLAIN, "kind": kind}).run(target, "layer4", probe, trainer, tmp_path)
    assert weights.name == f"shapes_resnet_layer4_{kind}.safetensors"
    ours, theirs = load(weights), load(tmp_path / weights.stem)
    x = rows_of(target, "layer4", "positions", probe, trainer)[:5].flatten(0, 1)
    assert torch.equal(ours(x), theirs(x)) and ours(x).shape == (80, 64)
    card = checkpoints.read_card(weights)
    assert {"explained_variance", "l0", "dead_share", "cpu_s"} <= card["figures"].keys()
    assert json.loads((tmp_path / weights.stem / "cfg.json").read_text())["d_sae"] == 64
    if kind == "topk":
        assert card["figures"]["l0"] <= 4 and (ours(x) > 0).sum(1).max() <= 4


def test_units_are_cut_to_the_density_of_latents(trainer, world, tmp_path):
    target, probe = world
    weights = SaeTask(**PLAIN, floor="cut").run(target, "layer4", probe, trainer, tmp_path)
    x = rows_of(target, "layer4", "positions", probe, trainer)[probe.split("train")].flatten(0, 1)
    latents = load(weights)(x)
    assert torch.equal(latents, load(tmp_path / weights.stem)(x)) and torch.equal(latents[latents > 0], x[latents > 0])
    assert (latents > 0).double().mean(0).max() == pytest.approx(4 / 64, abs=2 / len(x))


@pytest.mark.parametrize(
    ("network", "layer", "explained"), [("shapes_vit", "blocks.3", 0.93), ("shapes_resnet", "layer4", 0.90)]
)
def test_the_shipped_autoencoders_reach_their_targets(network, layer, explained):
    name = f"{network}_{layer}_topk"
    figures = checkpoints.read_card(checkpoints.FOLDER / f"{name}.safetensors")["figures"]
    assert figures["explained_variance"] >= explained and figures["dead_share"] <= 0.1 and figures["cpu_s"] <= 15
    assert load(name).k == 16


def test_a_random_encoder_learns_nothing(trainer, world, tmp_path):
    weights = SaeTask(**PLAIN, floor="random").run(*world[:1], "layer4", world[1], trainer, tmp_path)
    state, card = checkpoints.read(weights)
    torch.testing.assert_close(F.normalize(state["W_enc"].T), F.normalize(state["W_dec"]), atol=1e-3, rtol=1e-3)
    assert "learned nothing" in card["about"] and not (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"k": 65}, "sae.k=65 of 64 latents"),
        ({"kind": "top_k"}, "kind of autoencoder"),
        ({"floor": "none"}, "floor"),
        ({"where": "tokens"}, "choice of positions"),
        ({"where": "patches"}, "needs tokens"),
    ],
)
def test_mistakes_are_one_line(trainer, world, tmp_path, change, says):
    with pytest.raises(UserError, match=says):
        SaeTask(**{**PLAIN, **change}).run(*world[:1], "layer4", world[1], trainer, tmp_path)
