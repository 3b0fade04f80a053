import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from neuronx import milannotations
from neuronx.errors import UserError
from neuronx.methods.milan import features as module
from neuronx.methods.milan.describer import RegionEncoder, encoder_of
from neuronx.methods.milan.features import Features, features_of

HERE = Path(__file__).resolve()
from captioning import stored  # noqa: E402
from model_folders import make_model  # noqa: E402


@pytest.fixture(scope="module")
def encoder():
    return encoder_of("shapes_resnet")


@pytest.fixture
def units(tmp_path):
    make_model(tmp_path / "net/data", {"a": 5, "b": 4}, side=16)
    return milannotations.load("net/data", tmp_path)


@pytest.fixture
def calls(monkeypatch):
    """How many pictures went through the encoder."""
    seen = []
    plain = RegionEncoder.__call__

    def counted(self, images, masks=None):
        seen.append(len(images))
        return plain(self, images, masks)

    monkeypatch.setattr(RegionEncoder, "__call__", counted)
    return seen


def test_they_are_those_of_each_exemplar(units, encoder, trainer):
    found = features_of(units, encoder, trainer)
    assert isinstance(found, Features) and found.shape == (9, 3, 224)
    with torch.inference_mode():
        for i in (0, 4, 5, 8):
            expected = encoder(units[i].images, units[i].masks)
            torch.testing.assert_close(found[torch.tensor([i])][0], expected, atol=1e-4, rtol=1e-4)
    some = torch.tensor([8, 0, 8])
    assert torch.equal(found[some], torch.stack([found[row.unsqueeze(0)][0] for row in some]))


def test_they_are_made_once_by_content(units, encoder, trainer, calls, tmp_path):
    first = features_of(units, encoder, trainer)
    assert sum(calls) == 9 * 3
    again = features_of(units.subset([7, 2]), encoder, trainer)
    assert sum(calls) == 9 * 3
    assert torch.equal(again[torch.arange(2)], first[torch.tensor([7, 2])])
    make_model(tmp_path / "copy/data", {"a": 5, "b": 6}, side=16)
    features_of(milannotations.load("copy/data", tmp_path), encoder, trainer)
    assert sum(calls) == (9 + 6) * 3  # layer a is the same, wherever it lies
    features_of(units, encoder_of("shapes_resnet", published_masks=True), trainer)
    assert sum(calls) == (9 + 6 + 9) * 3


def test_a_run_that_broke_off_goes_on(tmp_path, encoder, trainer, calls, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 4)
    make_model(tmp_path / "net/data", {"a": 10}, side=16)
    units = milannotations.load("net/data", tmp_path)
    plain = module.Source, module.LayerSource.pictures

    def broken(self, rows):
        if 8 in rows:
            raise KeyboardInterrupt
        return plain[1](self, rows)

    monkeypatch.setattr(module.LayerSource, "pictures", broken)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        features_of(units, encoder, trainer)
    assert sum(calls) == 8 * 3
    monkeypatch.setattr(module.LayerSource, "pictures", plain[1])
    found = features_of(units, encoder, trainer)
    assert sum(calls) == 10 * 3 and found.shape[0] == 10


def test_only_blocks_of_wanted_units_are_made(tmp_path, encoder, trainer, calls, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 4)
    make_model(tmp_path / "net/data", {"a": 10}, side=16)
    units = milannotations.load("net/data", tmp_path)
    features_of(units.subset([9]), encoder, trainer)
    assert sum(calls) == 2 * 3


def test_wrong_masks_are_named(tmp_path, encoder, trainer):
    folder = make_model(tmp_path / "net/data", {"a": 3}, side=16)
    np.save(folder / "a/masks.npy", np.full((3, 3, 1, 16, 16), 7, np.uint8))
    with pytest.raises(UserError, match="masks are 0 or 1, found 7"):
        features_of(milannotations.load("net/data", tmp_path), encoder, trainer)


def test_half_precision_leaves_the_network_as_it_was(units, encoder, trainer):
    from functools import partial

    found = features_of(units, encoder, partial(trainer, precision="bf16-true"))
    whole = features_of(units, encoder, trainer)
    everything = torch.arange(9)
    assert next(encoder.target.module.parameters()).dtype == torch.float32
    assert not torch.equal(found[everything], whole[everything])
    torch.testing.assert_close(found[everything], whole[everything], atol=0.1, rtol=0.1)


@pytest.mark.slow
def test_two_processes_share_the_work(units, encoder, trainer, tmp_path):
    alone = features_of(units, encoder, trainer)
    environment = os.environ | {"NEURONX_CACHE": str(tmp_path / "shared"), "PYTHONPATH": str(HERE.parents[3])}
    script = HERE.with_name("milan_processes.py")
    subprocess.run([sys.executable, script, tmp_path, tmp_path / "found.npy"], check=True, env=environment, timeout=300)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), alone[torch.arange(9)].numpy(), atol=1e-5)


def test_the_scale_is_that_of_all_exemplars_of_some_units():
    values = torch.randn(70, 3, 5) * torch.tensor([1.0, 100.0, 0.1, 1.0, 1.0]) + 7
    values[..., 3] = 2
    features = stored(values, "scale")
    units = torch.arange(0, 70, 2)
    mean, deviation = features.scale(units)
    seen = values[units].flatten(0, 1)
    wanted = seen.std(0, correction=0)
    torch.testing.assert_close(mean, seen.mean(0))
    torch.testing.assert_close(deviation, wanted.clamp(min=0.01 * wanted.mean()))
