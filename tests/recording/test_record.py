"""Recording: right values, kept by content, resumed after anything, the same bytes on one process and on two."""

import dataclasses
import os
import signal
import threading
import time

import pytest
import torch
from torch import nn

from neuronx.errors import UserError
from neuronx.recording import record as recording
from neuronx.recording.record import record
from neuronx.targets.dictionary import Dictionary


def plainly(target, probe) -> dict[str, torch.Tensor]:
    """All pictures at once through the network, pooled by hand. The ReLU is in place: layer 0 is read before it."""
    x = target.transform(probe.load(range(len(probe))))
    a = target.module[0](x)
    b = torch.relu(a)
    c = target.module[4](target.module[2](b).flatten(1))
    return {"0": a.mean((2, 3)), "1": b.amax((2, 3)), "4": c}


def test_one_pass_records_every_layer(job, trainer):
    target, probe = job.small_target(), job.Noise(21)
    found = record(target, probe, trainer)
    with torch.no_grad():
        expected = plainly(target, probe)
    assert list(found) == ["0", "1", "4"]
    for layer, activations in found.items():
        assert activations.values.dtype == torch.float32 and activations.pool == target.layers[layer]
        assert [str(unit) for unit in activations.units[:2]] == [f"{layer}:0", f"{layer}:1"]
        torch.testing.assert_close(activations.values, expected[layer], atol=1e-5, rtol=1e-4)


def test_the_second_time_nothing_runs(job, trainer, monkeypatch):
    first = record(job.small_target(), job.Noise(21), trainer)
    monkeypatch.setattr(recording, "collect", lambda *_, **__: pytest.fail("ran again"))
    second = record(job.small_target(), job.Noise(21), trainer)
    assert all(torch.equal(first[layer].values, second[layer].values) for layer in first)
    # Another layer, pooling, network, transform, precision or number of images is another recording.
    other_weight = job.small_target()
    other_weight.module[4].bias[0] += 1
    changed = [
        (job.small_target({"0": "max"}), 21, {}),
        (job.small_target({"2": "avg"}), 21, {}),
        (job.small_target(), 22, {}),
        (job.small_target(), 21, {"precision": "bf16-mixed"}),
        (dataclasses.replace(other_weight, digest=""), 21, {}),
        (dataclasses.replace(other_weight, transform=nn.Identity()), 21, {}),
    ]
    for target, images, options in changed:
        with pytest.raises(pytest.fail.Exception, match="ran again"):
            record(target, job.Noise(images), lambda options=options: trainer(**options))


def test_values_are_mapped_not_loaded_and_cannot_be_spoilt(job, trainer, own_cache, recwarn, files):
    found = record(job.small_target({"4": "none"}), job.Noise(21), trainer)
    before = files(own_cache)
    found["4"].values.zero_()
    assert files(own_cache) == before
    assert not [w for w in recwarn if "writable" in str(w.message) or "DataLoader" in str(w.message)]


def test_without_store_nothing_is_left(job, trainer, own_cache, files):
    found = record(job.small_target({"4": "none"}), job.Noise(21), trainer, store=False)
    assert found["4"].values.shape == (21, 10) and not files(own_cache)


def test_a_run_that_broke_off_goes_on_where_it_was(job, trainer, own_cache, monkeypatch, tmp_path, files):
    whole = record(job.small_target(), job.Noise(50), trainer)
    expected = files(own_cache)
    monkeypatch.setenv("NEURONX_CACHE", str(tmp_path / "again"))
    monkeypatch.setattr("neuronx.recording.forward_pass.SAVE_SECONDS", 0.0)
    seen = []

    class Breaks(job.Noise):
        def load(self, rows):
            seen.extend(rows)
            if len(seen) > 24 and len(seen) < 40:
                raise RuntimeError("power cut")
            return super().load(rows)

    with pytest.raises(RuntimeError, match="power cut"):
        record(job.small_target(), Breaks(50), trainer)
    assert not list((tmp_path / "again").rglob("manifest.json"))
    seen[:] = [0] * 40
    resumed = record(job.small_target(), Breaks(50), trainer)
    assert sorted(seen[40:]) == list(range(24, 50)), "three whole batches were on disk"
    assert files(tmp_path / "again") == expected
    assert all(torch.equal(whole[layer].values, resumed[layer].values) for layer in whole)


def test_a_damaged_shard_is_recorded_anew(job, trainer, own_cache, monkeypatch):
    monkeypatch.setattr("neuronx.recording.forward_pass.SAVE_SECONDS", 0.0)
    monkeypatch.setattr(recording.Recorder, "_merge", lambda _: pytest.fail("stop before merging"))
    with pytest.raises(pytest.fail.Exception):
        record(job.small_target(), job.Noise(30), trainer)
    monkeypatch.undo()
    os.environ["NEURONX_CACHE"] = str(own_cache)
    shard = sorted(own_cache.rglob("shard-*"))[1]
    shard.write_bytes(shard.read_bytes()[:50])
    found = record(job.small_target(), job.Noise(30), trainer)
    with torch.no_grad():
        expected = plainly(job.small_target(), job.Noise(30))
    torch.testing.assert_close(found["4"].values, expected["4"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_broken_unit_leaves_the_others_as_they_are(job, trainer, caplog, value):
    sound = record(job.small_target(), job.Noise(21), trainer, {"0": "avg"})["0"]
    target = job.small_target()
    target.module[0].register_forward_hook(job.breaks(3, value))
    broken = record(dataclasses.replace(target, digest="broken"), job.Noise(21), trainer, {"0": "avg"})["0"]
    others = [0, 1, 2, 4, 5, 6, 7]
    assert broken.broken == (3,) and sound.broken == () and not broken.values[:, 3].any()
    assert torch.equal(broken.values[:, others], sound.values[:, others])
    assert "Layer `0` of small: 1 of 8 units are NaN or infinite on some image (3)" in caplog.text


def test_a_layer_without_a_sound_unit_is_refused(job, trainer, own_cache, files):
    target = job.small_target()
    target.module[4].bias[:] = float("nan")
    with pytest.raises(UserError, match="Layer `4` of small: every unit is NaN or infinite on some image"):
        record(dataclasses.replace(target, digest=""), job.Noise(21), trainer)
    kept = [name for name in files(own_cache) if "manifest" in name]
    assert len(kept) == 3, "the two layers without NaN, and what the network answers"


@pytest.mark.parametrize("breaking", ["shard-", "values", "manifest"])
def test_a_full_disk_leaves_no_manifest(job, trainer, own_cache, monkeypatch, breaking):
    from neuronx.store import cache

    write = cache.write_atomic

    def full(path, *content):
        if path.name.startswith(breaking):
            raise OSError(28, "No space left on device")
        return write(path, *content)

    monkeypatch.setattr(cache, "write_atomic", full)
    with pytest.raises(UserError, match=f"{own_cache}.*No space left on device.*NEURONX_CACHE"):
        record(job.small_target({"4": "none"}), job.Noise(21), trainer)
    assert not list(own_cache.rglob("manifest.json"))
    monkeypatch.setattr(cache, "write_atomic", write)
    assert record(job.small_target({"4": "none"}), job.Noise(21), trainer)["4"].values.shape == (21, 10)


def test_a_pooling_that_does_not_fit_names_the_layer(job, trainer):
    with pytest.raises(UserError, match="Layer `0` of small: pool=first needs tokens"):
        record(job.small_target({"0": "first"}), job.Noise(21), trainer)


def test_latents_of_a_dictionary_are_units(job, trainer):
    weight, bias, shift = torch.randn(12, 6), torch.randn(12), torch.randn(6)
    target = job.small_target({"2": "max"}, dictionary=Dictionary(weight, bias, shift))
    found = record(target, job.Noise(21), trainer)["2.dictionary"]
    x = target.transform(job.Noise(21).load(range(21)))
    with torch.no_grad():
        at_each_place = target.module[2](torch.relu(target.module[0](x))).movedim(1, -1) - shift
        expected = torch.relu(at_each_place @ weight.T + bias).amax((1, 2))
    torch.testing.assert_close(found.values, expected, atol=1e-4, rtol=1e-4)
    assert str(found.units[11]) == "2.dictionary:11"


def test_mixed_and_true_half_precision(job, trainer):
    dictionary = Dictionary(torch.ones(3, 8) / 3)
    layers = {"0": "avg", "0.dictionary": "max"}
    exact = record(job.small_target(layers, dictionary=dictionary), job.Noise(21), trainer)
    for precision in ("bf16-mixed", "bf16-true"):
        target = job.small_target(layers, dictionary=dictionary)
        half = record(target, job.Noise(21), lambda precision=precision: trainer(precision=precision))
        assert half["0"].values.dtype == torch.float32 and target.module[0].weight.dtype == torch.float32
        assert not torch.equal(half["0"].values, exact["0"].values)
        assert dictionary.weight.dtype == torch.float32
        for layer in layers:
            torch.testing.assert_close(half[layer].values, exact[layer].values, atol=0.05, rtol=0.05)


def test_the_module_is_left_as_it_was(job, trainer):
    target = job.small_target()
    record(target, job.Noise(21), trainer)
    assert target.module[0].weight.is_contiguous() and not target.module[0]._forward_hooks


def test_sigterm_ends_the_pass_and_keeps_what_was_recorded(job, trainer, own_cache):
    class Stops(job.Noise):
        def load(self, rows):
            if rows[0] == 16:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().load(rows)

    with pytest.raises(SystemExit) as end:
        record(job.small_target(), Stops(80), trainer)
    assert end.value.code == 143
    assert list(own_cache.rglob("shard-*")) and not list(own_cache.rglob("manifest.json"))


@pytest.mark.slow
def test_kill_9_and_the_same_command_gives_the_same_bytes(tmp_path, files, run):
    assert run(tmp_path / "whole", "record", "1", "101", "0").wait(120) == 0
    killed = run(tmp_path / "killed", "record", "1", "101", "0.3")
    start = time.monotonic()
    while len(list((tmp_path / "killed").rglob("shard-*"))) < 6 and time.monotonic() - start < 100:
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    assert not list((tmp_path / "killed").rglob("manifest.json"))
    assert run(tmp_path / "killed", "record", "1", "101", "0").wait(120) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("images", [101, 5])
def test_two_processes_give_the_same_bytes_as_one(tmp_path, images, files, run):
    assert run(tmp_path / "one", "record", "1", str(images), "0").wait(120) == 0
    assert run(tmp_path / "two", "record", "2", str(images), "0").wait(120) == 0
    assert files(tmp_path / "two") == files(tmp_path / "one")


@pytest.mark.parametrize("what", [lambda: (number for number in [1]), threading.Lock])
def test_what_cannot_be_keyed_is_not_kept_and_said_once(job, trainer, own_cache, what, caplog):
    target, plain, state = job.small_target({"4": "none"}), job.small_target().transform, what()

    def transform(pictures):
        return plain(pictures) if state is not None else pictures

    target = dataclasses.replace(target, transform=transform)
    first = record(target, job.Noise(21), trainer)["4"].values
    assert torch.equal(record(target, job.Noise(21), trainer)["4"].values, first)
    said = [entry.getMessage() for entry in caplog.records if "cannot be keyed" in entry.getMessage()]
    assert len(said) == 1 and said[0].startswith("The transform cannot be keyed (it holds an object of type")
    assert not (own_cache / "recordings").exists(), "it lies in a folder that goes with this process"
