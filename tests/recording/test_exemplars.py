"""Exemplars: exact on maps, tokens and plain layers; stored, resumed after anything, on one process and on two."""

import dataclasses
import os
import signal
import time

import pytest
import torch
from torch import nn

from neuronx.errors import UserError
from neuronx.recording import exemplars as module
from neuronx.recording.exemplars import find_exemplars, observe
from neuronx.recording.forward_pass import visit_outputs
from neuronx.recording.record import record
from neuronx.targets.dictionary import Dictionary
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target

FIELDS = ("rows", "values", "peaks", "places", "ties", "thresholds")


class Tokens(nn.Module):
    """From 16 x 16 pixels to one class token and 4 x 4 patches of 5 units."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 5, 4, 4)
        self.out = nn.Identity()

    def forward(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        return self.out(torch.cat([patches.new_full((len(x), 1, 5), 99.0), patches], 1))


def outputs(target, probe, trainer, layers, rows=None):
    """Layer -> values (N, K, positions) of the whole data, without tokens that are no patches, by a pass of its own."""
    rows = probe.split("train", "val") if rows is None else rows
    seen = {layer: [] for layer in layers}

    def visit(_, found):
        for layer, output in found.items():
            if output.ndim == 3:
                output = output[:, target.prefix_tokens :].transpose(1, 2)
            seen[layer].append(output.reshape(*output.shape[:2], -1))

    visit_outputs(target, probe, trainer, layers, visit, rows)
    return {layer: torch.cat(values) for layer, values in seen.items()}


def lot(row, unit):
    """Murmur3's finaliser, in plain integers."""

    def hashed(number):
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            number = (number ^ (number >> shift)) * factor % 2**32
        return number ^ (number >> 16)

    return hashed(row ^ hashed(unit + 1))


def check(found, values, rows, k, quantile):
    """Against the whole arrays (N, K, positions), one unit at a time."""
    wide = values.transpose(0, 1).flatten(1)
    assert torch.equal(found.thresholds, torch.quantile(wide.double(), quantile, dim=1).float())
    # In float32, torch.quantile rounds the rank.
    torch.testing.assert_close(found.thresholds, torch.quantile(wide, quantile, dim=1), atol=1e-4, rtol=1e-4)
    for unit in range(values.shape[1]):
        peaks, means = values[:, unit].amax(1), values[:, unit].mean(1)
        keys = [(-float(p), -float(m), lot(int(row), unit)) for p, m, row in zip(peaks, means, rows, strict=True)]
        order = sorted(range(len(rows)), key=keys.__getitem__)[:k]
        assert found.rows[unit].tolist() == rows[order].tolist()
        assert torch.equal(found.peaks[unit], peaks[order])
        assert torch.equal(found.values[unit], peaks[order])
        assert found.ties[unit] == (peaks == peaks.max()).sum()
        at = values[order, unit].gather(1, found.places[unit][:, None]).squeeze(1)
        assert torch.equal(at, found.peaks[unit])
        assert found.places[unit].tolist() == [int((values[i, unit] == peaks[i]).nonzero()[0]) for i in order]


@pytest.mark.parametrize(("quantile", "tail_mb"), [(0.99, 64), (0.995, 0), (0.9999, 0), (0.5, 64), (0.02, 0)])
def test_exemplars_and_thresholds_are_those_of_the_whole_arrays(job, trainer, monkeypatch, quantile, tail_mb):
    monkeypatch.setattr("neuronx.recording.tally.SLACK", 0)
    target, probe = job.small_target(), job.Noise(101)
    found = find_exemplars(target, probe, trainer, k=7, quantile=quantile, tail_mb=tail_mb)
    rows = probe.split("train", "val")
    assert list(found) == ["0", "1", "4"] and found["0"].grid == (14, 14) and found["4"].grid is None
    for layer, values in outputs(target, probe, trainer, list(found)).items():
        check(found[layer], values, rows, 7, quantile)
        assert [str(unit) for unit in found[layer].units[:2]] == [f"{layer}:0", f"{layer}:1"]
        assert (found[layer].images, found[layer].quantile, found[layer].layer) == (81, quantile, layer)
        assert found[layer].rows.dtype == torch.int64 and found[layer].thresholds.dtype == torch.float32


def test_patches_are_positions_and_the_class_token_is_none(job, trainer):
    torch.manual_seed(1)
    layers = {"out": "patch", "patches": "avg"}
    target = Target("vit", Tokens(), Preprocess(), layers, prefix_tokens=1)
    found = find_exemplars(target, job.Noise(40), trainer, k=3, rows=torch.arange(40))
    assert found["out"].grid == found["patches"].grid == (4, 4)
    assert found["out"].ranking == found["patches"].ranking == "peak"
    for name in FIELDS:
        assert torch.equal(getattr(found["out"], name), getattr(found["patches"], name))
    values = outputs(target, job.Noise(40), trainer, ["out"], torch.arange(40))["out"]
    check(found["out"], values, torch.arange(40), 3, 0.99)


class Gauge(nn.Module):
    """Tokens whose class token is small where patches are large."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Identity()

    def forward(self, x):
        patches = nn.functional.avg_pool2d(x, 4).flatten(2).transpose(1, 2)
        return self.out(torch.cat([-patches.amax(1, keepdim=True), patches], 1))


@pytest.mark.parametrize("by", ["peak", "pool"])
def test_the_class_token_ranks_images_where_it_is_what_is_explained(job, trainer, by):
    target, probe = Target("gauge", Gauge(), Preprocess(), {"out": "first"}, prefix_tokens=1), job.Noise(50)
    found = find_exemplars(target, probe, trainer, k=5, quantile=0.9, by=by)["out"]
    values, seen = record(target, probe, trainer)["out"].values, probe.split("train", "val")
    assert found.grid is None and found.images == len(seen) and found.ranking == "class token"
    for unit in range(3):
        assert found.rows[unit].tolist() == sorted(seen.tolist(), key=lambda row, u=unit: -float(values[row, u]))[:5]
        torch.testing.assert_close(found.values[unit], values[found.rows[unit], unit])
    assert torch.equal(found.values, found.peaks)
    torch.testing.assert_close(found.thresholds, values[seen].quantile(0.9, 0))
    whole = find_exemplars(target, probe, trainer, {"out": "patch"}, k=5)["out"]
    assert whole.rows[0].tolist() != found.rows[0].tolist() and whole.grid == (4, 4)


@pytest.mark.parametrize(("pool", "ranking"), [("avg", "mean"), ("max", "peak"), ("patch", "patch mean")])
def test_by_pool_the_number_that_is_scored_ranks_images(job, trainer, pool, ranking):
    layers = {"out": pool} if pool == "patch" else {"patches": pool}
    torch.manual_seed(1)
    target, probe = Target("vit", Tokens(), Preprocess(), layers, prefix_tokens=1), job.Noise(60)
    ((layer, found),) = find_exemplars(target, probe, trainer, k=4, by="pool").items()
    values, seen = record(target, probe, trainer)[layer].values, probe.split("train", "val")
    assert found.ranking == ranking and found.grid == (4, 4)
    for unit in range(5):
        assert found.rows[unit].tolist() == sorted(seen.tolist(), key=lambda row, u=unit: -float(values[row, u]))[:4]
    peaks = outputs(target, probe, trainer, [layer], seen)[layer].amax(2)
    assert torch.equal(found.peaks[0], peaks[torch.searchsorted(seen, found.rows[0]), 0])
    same = find_exemplars(target, probe, trainer, k=4)[layer]
    assert torch.equal(same.rows, found.rows) == (pool == "max")
    torch.testing.assert_close(same.thresholds, found.thresholds)


def test_ties_are_broken_by_the_mean_and_then_by_lot_and_units_that_tie_are_saturated(job, trainer):
    def target(pool):
        parts = [nn.Conv2d(3, 3, 3), nn.ReLU6()]
        with torch.no_grad():
            parts[0].weight.copy_(60 * torch.randn(parts[0].weight.shape, generator=torch.Generator().manual_seed(0)))
            parts[0].bias.copy_(torch.tensor([0.0, 1e4, -1e4]))
        return Target("relu6", nn.Sequential(*parts), Preprocess(), {"1": pool})

    probe = job.Noise(60)
    found, pooled = (find_exemplars(target(p), probe, trainer, k=7)["1"] for p in ("avg", "max"))
    rows = probe.split("train", "val")
    check(found, outputs(target("avg"), probe, trainer, ["1"])["1"], rows, 7, 0.99)
    assert found.saturated.tolist() == pooled.saturated.tolist() == [True, True, False], "a dead unit is not saturated"
    assert found.ties.tolist() == [len(rows)] * 3
    by_mean = find_exemplars(target("avg"), probe, trainer, k=7, by="pool")["1"]
    assert torch.equal(found.rows[0], by_mean.rows[0]) and not by_mean.saturated[0]
    for unit in range(3):
        drawn = sorted(rows.tolist(), key=lambda row, u=unit: lot(row, u))[:7]
        assert pooled.rows[unit].tolist() == drawn != sorted(drawn)
    assert len({tuple(row) for row in pooled.rows.tolist()}) == 3, "units that tie do not all show the same images"


def test_one_pass_gives_activations_and_exemplars(job, trainer, monkeypatch, tmp_path):
    target, probe = job.small_target(masks="published"), job.Noise(50)
    apart = record(target, probe, trainer), find_exemplars(target, probe, trainer, k=4)
    monkeypatch.setenv("NEURONX_CACHE", str(tmp_path / "together"))
    seen = count(monkeypatch, job)
    together = observe(target, probe, trainer, k=4)
    assert sorted(seen) == list(range(50)), "every image once"
    for layer in target.layers:
        torch.testing.assert_close(together[0][layer].values, apart[0][layer].values)
        assert torch.equal(together[1][layer].rows, apart[1][layer].rows)
        torch.testing.assert_close(together[1][layer].thresholds, apart[1][layer].thresholds)
    # What is known is not looked for again: other exemplars need the images of train and val only.
    del seen[:]
    observe(target, probe, trainer, k=5)
    assert sorted(seen) == probe.split("train", "val").tolist()
    del seen[:]
    find_exemplars(target, probe, trainer, ["4"], k=5)
    assert not seen


def test_the_second_time_nothing_runs(job, trainer, monkeypatch):
    first = find_exemplars(job.small_target(), job.Noise(50), trainer, k=3)
    monkeypatch.setattr(module, "collect", lambda *_, **__: pytest.fail("ran again"))
    second = find_exemplars(job.small_target(), job.Noise(50), trainer, ["4", "0"], k=3)
    assert list(second) == ["4", "0"]
    assert all(torch.equal(getattr(first["0"], name), getattr(second["0"], name)) for name in FIELDS)
    for options in (
        {"k": 4},
        {"k": 3, "quantile": 0.98},
        {"k": 3, "by": "pool"},
        {"k": 3, "rows": torch.arange(50)},
        {"k": 3, "layers": ["2"]},
    ):
        with pytest.raises(pytest.fail.Exception, match="ran again"):
            find_exemplars(job.small_target(), job.Noise(50), trainer, **options)


def test_latents_of_a_dictionary_and_half_precision(job, trainer):
    dictionary = Dictionary(torch.ones(3, 8) / 3)
    target = job.small_target({"0": "avg", "0.dictionary": "max"}, dictionary=dictionary)
    exact = find_exemplars(target, job.Noise(50), trainer, k=3)
    half = find_exemplars(target, job.Noise(50), lambda: trainer(precision="bf16-true"), k=3)
    assert exact["0.dictionary"].rows.shape == (3, 3) and target.module[0].weight.dtype == torch.float32
    for layer in exact:
        assert not torch.equal(half[layer].peaks, exact[layer].peaks)
        torch.testing.assert_close(half[layer].thresholds, exact[layer].thresholds, atol=0.05, rtol=0.05)


def count(monkeypatch, job):
    """The rows that any `Noise` loads from now on."""
    seen, load = [], job.Noise.load
    monkeypatch.setattr(job.Noise, "load", lambda self, rows: seen.extend(rows) or load(self, rows))
    return seen


def test_a_run_that_broke_off_goes_on_where_it_was(job, trainer, own_cache, monkeypatch, tmp_path, files):
    monkeypatch.setattr("neuronx.recording.tally.SLACK", 0)
    target = job.small_target(masks="published")
    observe(target, job.Noise(90), trainer, k=3)
    expected = files(own_cache)
    monkeypatch.setenv("NEURONX_CACHE", str(tmp_path / "again"))
    monkeypatch.setattr("neuronx.recording.forward_pass.SAVE_SECONDS", 0.0)
    seen, load = count(monkeypatch, job), job.Noise.load

    def breaks(self, rows):
        if 40 < len(seen) < 60:
            raise RuntimeError("power cut")
        return load(self, rows)

    monkeypatch.setattr(job.Noise, "load", breaks)
    with pytest.raises(RuntimeError, match="power cut"):
        observe(target, job.Noise(90), trainer, k=3)
    assert list((tmp_path / "again").rglob("part-*")) and not list((tmp_path / "again").rglob("manifest.json"))
    seen[:] = [0] * 60
    observe(target, job.Noise(90), trainer, k=3)
    assert sorted(seen[60:]) == list(range(48, 90))
    assert files(tmp_path / "again") == expected


def test_a_damaged_part_is_made_anew(job, trainer, own_cache, monkeypatch):
    whole = find_exemplars(job.small_target(), job.Noise(60), trainer, k=3, rows=torch.arange(60))
    monkeypatch.setenv("NEURONX_CACHE", str(own_cache / "again"))
    monkeypatch.setattr("neuronx.recording.forward_pass.SAVE_SECONDS", 0.0)
    monkeypatch.setattr(module.Finder, "_merge", lambda _: pytest.fail("stop before merging"))
    with pytest.raises(pytest.fail.Exception):
        find_exemplars(job.small_target(), job.Noise(60), trainer, k=3, rows=torch.arange(60))
    monkeypatch.undo()
    os.environ["NEURONX_CACHE"] = str(own_cache / "again")
    for length, part in zip((3, 100, -3), sorted((own_cache / "again").rglob("part-*")), strict=False):
        part.write_bytes(part.read_bytes()[:length])
    again = find_exemplars(job.small_target(), job.Noise(60), trainer, k=3, rows=torch.arange(60))
    for layer in whole:
        assert all(torch.equal(getattr(whole[layer], name), getattr(again[layer], name)) for name in FIELDS)


def test_sigterm_ends_the_pass_and_keeps_what_was_found(job, trainer, own_cache, monkeypatch):
    load = job.Noise.load

    def stops(self, rows):
        if rows[0] == 16:
            os.kill(os.getpid(), signal.SIGTERM)
        return load(self, rows)

    monkeypatch.setattr(job.Noise, "load", stops)
    with pytest.raises(SystemExit) as end:
        find_exemplars(job.small_target(), job.Noise(80), trainer, rows=torch.arange(80))
    assert end.value.code == 143
    assert list(own_cache.rglob("part-*")) and not list(own_cache.rglob("manifest.json"))


@pytest.mark.parametrize("breaking", ["part-", "tensors", "manifest"])
def test_a_full_disk_leaves_no_manifest(job, trainer, own_cache, monkeypatch, breaking):
    from neuronx.store import cache

    write = cache.write_atomic

    def full(path, *content):
        if path.name.startswith(breaking):
            raise OSError(28, "No space left on device")
        return write(path, *content)

    monkeypatch.setattr(cache, "write_atomic", full)
    with pytest.raises(UserError, match=f"{own_cache}.*No space left on device.*NEURONX_CACHE"):
        find_exemplars(job.small_target(), job.Noise(30), trainer)
    assert not list(own_cache.rglob("manifest.json"))


@pytest.mark.parametrize("tail_mb", [64, 1e-5])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_broken_unit_leaves_the_others_as_they_are(job, trainer, own_cache, value, tail_mb):
    sound = find_exemplars(job.small_target(), job.Noise(30), trainer, ["0"], tail_mb=tail_mb)["0"]
    target = job.small_target()
    target.module[0].register_forward_hook(job.breaks(3, value))
    target = dataclasses.replace(target, digest="broken")
    found = find_exemplars(target, job.Noise(30), trainer, ["0"], tail_mb=tail_mb)["0"]
    others = [0, 1, 2, 4, 5, 6, 7]
    assert found.broken == (3,) and sound.broken == ()
    for name in FIELDS:
        assert torch.equal(getattr(found, name)[others], getattr(sound, name)[others])
    assert not found.peaks[3].any() and found.thresholds[3] == float("inf") and len(set(found.rows[3].tolist())) == 15


class Odd(nn.Module):
    """Maps that grow with the brightness of the first image, and five tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.tokens = nn.Identity(), nn.Identity()

    def forward(self, x):
        self.tokens(x.flatten(2)[..., :5].transpose(1, 2))
        return self.maps(x[..., : 3 + int(x[0, 0, 0, 0] > 0.5)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantile": 0.0}, "quantile=0.0: write a number between 0 and 1"),
        ({"quantile": 1.0}, "quantile=1.0"),
        ({"quantile": float("nan")}, "quantile=nan"),
        ({"k": 0}, "k=0"),
        ({"k": 1, "by": "mean"}, "There is no ranking of exemplars `mean`. Nearest: peak"),
        ({"k": 41}, "k=41 exemplars of each unit cannot be found among 40 images"),
        ({"k": 1, "rows": torch.tensor([3, 50])}, "rows 3 to 50 are asked for, but the data has 50 images"),
        ({"k": 1, "rows": torch.arange(0)}, "among 0 images"),
        ({"layers": ["O"]}, "There is no layer of odd `O`"),
        ({"layers": ["tokens"]}, "Layer `tokens` of odd: its 5 tokens after the first 0 fill no square grid"),
        ({"layers": ["maps"]}, r"Layer `maps` of odd: its grid is \[16, \d\] on some images and"),
    ],
)
def test_bad_input_is_said(job, trainer, options, message):
    target = Target("odd", Odd(), Preprocess(), {"maps": "avg"})
    with pytest.raises(UserError, match=message):
        find_exemplars(target, job.Noise(50), trainer, **options)


@pytest.mark.slow
def test_kill_9_and_the_same_command_gives_the_same_bytes(tmp_path, run, files):
    assert run(tmp_path / "whole", "exemplars", "1", "101", "0", "64").wait(200) == 0
    killed = run(tmp_path / "killed", "exemplars", "1", "101", "0.3", "64")
    start = time.monotonic()
    while len(list((tmp_path / "killed").rglob("part-*"))) < 6 and time.monotonic() - start < 100:
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    assert not list((tmp_path / "killed").rglob("manifest.json"))
    assert run(tmp_path / "killed", "exemplars", "1", "101", "0", "64").wait(200) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("images", [101, 5])
def test_two_processes_give_the_same_bytes_as_one(tmp_path, images, run, files):
    assert run(tmp_path / "one", "exemplars", "1", str(images), "0", "64").wait(200) == 0
    assert run(tmp_path / "two", "exemplars", "2", str(images), "0", "64").wait(200) == 0
    kept = files(tmp_path / "one")
    assert {path.split("/")[0] for path in kept} == {"exemplars", "field_centres", "recordings"}
    assert files(tmp_path / "two") == kept


@pytest.mark.slow
@pytest.mark.parametrize("tail_mb", ["64", "1"])
def test_memory_does_not_grow_with_the_images(tmp_path, tail_mb, run):
    peaks = []
    for images in ("2000", "20000"):
        process = run(tmp_path / images, "exemplars", "1", images, "0", tail_mb)
        peaks.append(float(process.communicate(timeout=500)[0].split()[-1]))
    assert peaks[1] <= 1.1 * peaks[0]
