"""Entries of the store: read as they were published, or not at all; drafts of runs that do not disturb each other."""

import json
import os
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from neuronx.errors import UserError
from neuronx.store import cache
from neuronx.store.cache import Draft, Entry, collection, entry, is_sound, packed, read_or_build, read_or_make
from neuronx.store.checkpoints import sorted_file
from neuronx.store.processes import process

OTHER = "0000ffff-1-00000000"
"""A run on another machine, of which nobody knows whether it is over."""


def published(place: Entry) -> Entry:
    place.publish({"a.bin": b"first file", "b": [b"in ", b"parts"]}, number=0.1, shape=[2, 3])
    return place


def test_what_is_published_is_read():
    place = entry("things", {"of": [1, "two"]})
    assert place.open() is None
    contents = published(place).open()
    assert {name: path.read_bytes() for name, path in contents.files.items()} == {
        "a.bin": b"first file",
        "b": b"in parts",
    }
    assert contents.facts == {"number": 0.1, "shape": [2, 3]}
    assert json.loads((place.path / "manifest.json").read_text())["key"] == {"of": [1, "two"]}
    assert entry("things", {"of": [1, "two"]}).open() and not entry("things", {"of": [1, "three"]}).open()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_damage_is_noticed(tmp_path_factory, data):
    place = published(Entry(tmp_path_factory.mktemp("store"), {"of": "this"}))
    path = data.draw(st.sampled_from(sorted(place.path.iterdir())))
    before = path.read_bytes()
    how = data.draw(st.sampled_from(["cut", "flipped", "longer", "removed"]))
    at = data.draw(st.integers(0, len(before) - 1))
    if how == "removed":
        path.unlink()
    else:
        bit = 1 << data.draw(st.integers(0, 7))
        changed = {
            "cut": before[:at],
            "longer": before + b"x",
            "flipped": before[:at] + bytes([before[at] ^ bit]) + before[at + 1 :],
        }
        path.write_bytes(changed[how])
    found = place.open()
    if found is not None:  # of the manifest, spaces do not count
        assert path.name == "manifest.json" and json.loads(path.read_bytes()) == json.loads(before)
    published(place)
    assert {name: path.read_bytes() for name, path in place.open().files.items()} == {
        "a.bin": b"first file",
        "b": b"in parts",
    }


def test_damage_is_said_in_one_line(caplog):
    place = published(entry("things", 1))
    place.open().files["b"].write_bytes(b"")
    assert place.open() is None and place.open() is None
    (said,) = caplog.records
    assert said.getMessage() == f"{place.path} in the store is damaged, and is made anew."


def test_read_or_make_makes_once_and_again_after_damage():
    made = []

    def make():
        made.append(1)
        return {"x": torch.arange(6).view(2, 3).T}

    def read():
        return read_or_make(lambda: entry("things", 2), make)["x"]

    assert torch.equal(read(), read()) and read().tolist() == [[0, 3], [1, 4], [2, 5]] and len(made) == 1
    next(entry("things", 2).path.glob("tensors.*")).write_bytes(b"junk")
    assert read().tolist() == [[0, 3], [1, 4], [2, 5]] and len(made) == 2


def test_two_runs_that_publish_other_bytes_leave_one_of_them_whole():
    place = entry("things", 3)
    place.publish({"a.bin": b"of one run"})
    reader = place.open()
    place.publish({"a.bin": b"of another"})
    assert reader.files["a.bin"].read_bytes() == b"of one run", "whoever has opened it may still read it"
    assert place.open().files["a.bin"].read_bytes() == b"of another"


def test_a_draft_takes_over_what_others_have_and_leaves_theirs():
    place = entry("things", 4)
    theirs, own = Draft(place, OTHER), Draft(place, process())
    sound, damaged = theirs.write("block-1.bin", b"one"), theirs.write("block-2.bin", b"two")
    damaged.write_bytes(b"twx")
    own.write("block-3.bin", b"three")
    assert sorted(path.read_bytes() for path in own.adopt("block-")) == [b"one", b"three"]
    assert sound.exists() and not damaged.exists()
    assert own.adopt("block-") == own.blocks("block-"), "the second time there is nothing new"
    own.publish({"all.bin": b"".join(path.read_bytes() for path in own.blocks("block-"))})
    assert sound.exists() and own.blocks("") == [], "what may be of a running process stays"
    late = time.time() - cache.ABANDONED_SECONDS - 60
    os.utime(sound, (late, late))
    theirs.publish({"all.bin": b"of a slower run"})
    assert place.open().files["all.bin"].read_bytes() == b"onethree", "the first stays"
    assert not sound.exists()


def test_entries_that_nobody_finished_are_swept():
    left, new = entry("things", 5), entry("things", 6)
    Draft(left, OTHER).write("block-1.bin", b"one")
    late = time.time() - cache.ABANDONED_SECONDS - 60
    os.utime(left.path, (late, late))
    new.publish({})
    assert not left.path.exists() and new.open()


def test_blocks_stand_for_themselves():
    place = collection("things", 7, of="blocks")
    paths = [place.write(f"block-{number}.bin", bytes([number])) for number in range(3)]
    paths[1].write_bytes(b"damaged")
    assert place.sound([f"block-{number}.bin" for number in range(4)]) == {
        "block-0.bin": paths[0],
        "block-2.bin": paths[2],
    }
    assert not paths[1].exists() and not is_sound(paths[1])
    (place.path / "manifest.json").write_bytes(b"")
    assert collection("things", 7).open() and len(place.blocks("block-")) == 2


def test_a_folder_is_built_beside_its_place_and_anew_when_damaged():
    built = []

    def build(folder):
        built.append(folder)
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "table.csv").write_text("a,b\n")

    place = entry("folders", 8)
    assert read_or_build(place, build) == read_or_build(place, build) == place.path
    assert len(built) == 1 and not built[0].exists()
    (place.path / "deep" / "table.csv").write_text("a,c\n")
    assert (read_or_build(place, build) / "deep" / "table.csv").read_text() == "a,b\n" and len(built) == 2


def test_a_full_disk_is_a_mistake_that_can_be_mended(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "write_atomic", full)
    with pytest.raises(
        UserError, match=r"The store cannot be written at .* \(No space left on device\).*NEURONX_CACHE"
    ):
        entry("things", 9).publish(packed({"x": torch.zeros(1)}))


def test_metadata_of_weights_is_sorted():
    names = [f"name-{number}" for number in range(20)]
    file = sorted_file({"x": torch.arange(3)}, {name: "ü" for name in reversed(names)})
    header = file[8 : 8 + int.from_bytes(file[:8], "little")]
    assert list(json.loads(header)["__metadata__"]) == sorted(names) and len(header) % 8 == 0
    assert load(file)["x"].tolist() == [0, 1, 2]
