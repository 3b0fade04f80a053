"""The published layout, byte for byte, and what is in it."""

import dataclasses
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracles_milannotations as oracle
import pytest
import torch

from neuronx.data.in_memory import InMemoryProbe
from neuronx.errors import UserError
from neuronx.milannotations import write as writing
from neuronx.milannotations.write import write_all
from neuronx.recording import exemplars as gathering

PROCESSES = Path(__file__).with_name("processes.py")


@pytest.fixture(scope="module")
def world():
    target, probe = oracle.network(), oracle.pictures()
    maps = oracle.outputs(target, probe)
    return target, probe, maps, {layer: oracle.exemplars(found, layer) for layer, found in maps.items()}


def write(folder, exemplars, *rest, **options):
    return write_all(folder, {exemplars.units[0].layer: exemplars}, *rest, **options)[0]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_layout_is_the_published_one(world, trainer, tmp_path):
    target, probe, _, found = world
    folders = write_all(tmp_path, found, target, probe, trainer)
    assert folders == [tmp_path / layer for layer in ("1", "3", "5")]
    for folder, units in zip(folders, (5, 4, 3), strict=True):
        names = {path.name for path in folder.iterdir()}
        assert names == {"images.npy", "masks.npy", "ids.csv", "activations.csv"}
        for name, channels in (("images", 3), ("masks", 1)):
            data = (folder / f"{name}.npy").read_bytes()
            header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({units}, 3, {channels}, 16, 16), }}"
            assert data[:10] == b"\x93NUMPY\x01\x00\x76\x00"
            assert data[10:128].decode() == header.ljust(117) + "\n"
            assert len(data) == 128 + units * 3 * channels * 16 * 16
    one = found["1"]
    ids = "".join(",".join(str(row) for row in line) + "\n" for line in one.rows.tolist())
    assert (folders[0] / "ids.csv").read_text() == ids
    peaks = "".join(",".join(f"{peak:.5e}" for peak in line) + "\n" for line in one.peaks.tolist())
    assert (folders[0] / "activations.csv").read_text() == peaks


def test_masks_are_where_the_upsampled_map_is_above_the_threshold(world, trainer, tmp_path):
    target, probe, maps, found = world
    write_all(tmp_path, found, target, probe, trainer, size=24)
    for layer in ("1", "3"):
        masks = np.load(tmp_path / layer / "masks.npy")
        one, differing = found[layer], 0
        for unit, rows in enumerate(one.rows.tolist()):
            for rank, row in enumerate(rows):
                expected = oracle.mask(maps[layer][row, unit], float(one.thresholds[unit]), 24)
                differing += int((masks[unit, rank, 0] != expected).sum())
        assert differing <= 2, "rounding may decide a pixel, no more"
        assert 0.02 < masks.mean() < 0.98 and set(np.unique(masks)) == {0, 1}


def test_images_are_what_the_network_sees(world, trainer, tmp_path):
    target, probe, _, found = world
    images = np.load(write(tmp_path, found["1"], target, probe, trainer) / "images.npy")
    plain = dataclasses.replace(target.transform, mean=None, std=None)
    for unit, rows in enumerate(found["1"].rows.tolist()):
        for rank, picture in enumerate(probe.load(rows)):
            seen = (plain(picture) * 255).round().to(torch.uint8)
            assert np.array_equal(images[unit, rank], seen.numpy())


def test_a_layer_without_positions_is_shown_whole_and_said_so(world, trainer, tmp_path, caplog, monkeypatch):
    target, probe, _, found = world
    monkeypatch.setattr(gathering, "visit_outputs", lambda *_: pytest.fail("the network need not run"))
    with caplog.at_level(logging.INFO, "neuronx"):
        folder = write(tmp_path, found["5"], target, probe, trainer)
    assert np.load(folder / "masks.npy").min() == 1
    assert "5 of small has no positions: the masks are the whole images" in caplog.text


def test_only_the_units_asked_for(world, trainer, tmp_path):
    target, probe, _, found = world
    whole = write(tmp_path / "whole", found["3"], target, probe, trainer)
    some = write(tmp_path / "some", found["3"], target.select(layers="3", units=[1, 3]), probe, trainer)
    units = np.load(some / "units.npy")
    assert units.tolist() == [1, 3] and units.dtype == np.int64
    for name in ("images", "masks"):
        assert np.array_equal(np.load(some / f"{name}.npy"), np.load(whole / f"{name}.npy")[[1, 3]])
    assert (some / "ids.csv").read_text().splitlines() == [
        line for unit, line in enumerate((whole / "ids.csv").read_text().splitlines()) if unit in (1, 3)
    ]
    write(tmp_path / "some", found["3"], target, probe, trainer)
    assert not (some / "units.npy").exists(), "all units are numbered by their places"


def test_the_same_bytes_however_many_are_written_at_once(world, trainer, tmp_path, monkeypatch):
    target, probe, _, found = world
    write_all(tmp_path / "together", found, target, probe, trainer)
    monkeypatch.setattr(writing, "CHUNK_BYTES", 1)
    for one in found.values():
        write(tmp_path / "alone", one, target, probe, trainer)
    assert files(tmp_path / "together") == files(tmp_path / "alone")


def test_the_network_runs_once_over_the_exemplars_only(world, trainer, tmp_path, monkeypatch):
    target, probe, _, found = world
    few = {layer: dataclasses.replace(one, rows=one.rows % 3) for layer, one in found.items()}
    seen = []
    target.module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    write_all(tmp_path, few, target, probe, trainer)
    assert seen == [2, 2, 3], "two images twice, to check that the outputs can be relied on"
    assert (tmp_path / "1" / "ids.csv").read_text().count("\n") == 5


def test_where_the_network_takes_any_size_pictures_keep_theirs(trainer, tmp_path):
    target = oracle.network(transform=lambda picture: picture.float(), input_size=None)
    found = {"5": oracle.exemplars(torch.rand(4, 3), "5")}
    batch = InMemoryProbe(torch.zeros(4, 3, 20, 20, dtype=torch.uint8))
    for probe, size in ((batch, 20), (oracle.pictures(4), 224)):
        folder = write(tmp_path / str(size), found["5"], target, probe, trainer)
        assert np.load(folder / "images.npy", mmap_mode="r").shape == (3, 3, 3, size, size)


def test_layers_are_called_as_in_the_network():
    assert writing.layer_folder("run", "blocks.9.mlp.fc1") == Path("run/blocks.9.mlp.fc1")
    assert writing.layer_folder("run", "") == Path("run/outputs")


def test_mistakes_are_said_in_one_line(world, trainer, tmp_path, monkeypatch):
    target, probe, _, found = world
    with pytest.raises(UserError, match="cannot have images of -1 pixels"):
        write(tmp_path, found["5"], target, probe, trainer, size=-1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "write_atomic", full)
    with pytest.raises(UserError, match=r"Exemplars cannot be written to .* \(No space left on device\)"):
        write(tmp_path, found["5"], target, probe, trainer)


@pytest.mark.slow
def test_two_processes_write_the_same(world, trainer, tmp_path):
    target, _, _, found = world
    sizes = (4, 500)  # with 500 the second process has nothing to do
    command = [sys.executable, str(PROCESSES), str(tmp_path / "two"), *map(str, sizes)]
    subprocess.run(command, check=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    for size in sizes:
        probe = oracle.pictures()
        probe.batch_size = size
        write_all(tmp_path / "one" / str(size), found, target, probe, trainer)
    assert files(tmp_path / "one") == files(tmp_path / "two")
