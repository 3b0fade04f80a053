import contextlib
import io
import os
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch

from neuronx.errors import UserError
from neuronx.methods.milan import published as container
from neuronx.methods.milan.published import ALLOWED, read_container


def saved(path, content):
    torch.save(content, path)
    return path


def zipped(path, data, storages=()):
    """A file as torch.save writes it around a pickle of ours."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for key, content in storages:
            archive.writestr(f"archive/data/{key}", content)
    return path


def test_tensors_and_containers_come_back(tmp_path):
    weight = torch.randn(4, 6)
    content = {
        "state_dict": OrderedDict(a=weight, transposed=weight.T, part=weight[1:, 2:4], scalar=torch.tensor(3)),
        "kinds": [
            torch.ones(3, dtype=d) for d in (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.bool)
        ],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "plain": (1, 2.5, "text", None, True, [b"", b"bytes \xff"], {"nested": {}}),
        "empty": torch.zeros(0, 3),
    }
    found = read_container(saved(tmp_path / "a.pth", content))
    assert found["plain"] == content["plain"]
    for name, value in content["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value), name
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found["kinds"], content["kinds"], strict=True))
    assert torch.equal(found["parameter"], content["parameter"]) and found["empty"].shape == (0, 3)
    assert (
        found["state_dict"]["a"].untyped_storage().data_ptr()
        == found["state_dict"]["part"].untyped_storage().data_ptr()
    )


@pytest.mark.parametrize("module", ["thinc.config", "confection"])
def test_spacys_configuration_becomes_a_dictionary(tmp_path, module, monkeypatch):
    import spacy
    from thinc.config import Config

    monkeypatch.setattr(Config, "__module__", module)
    config = spacy.blank("en").config
    path = saved(tmp_path / "a.pth", {"nlp": (config, b"x")})
    assert module.encode() in zipfile.ZipFile(path).read("a/data.pkl")
    found = read_container(path)["nlp"][0]
    assert found == dict(config) and type(found).__module__.startswith("neuronx")


class Foreign:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (Foreign(), r"(posix|nt)\.mkdir"),
        ({"state_dict": {}, "x": [Foreign()]}, r"(posix|nt)\.mkdir"),
        (torch.nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear"),
        (eval, r"(__builtin__|builtins)\.eval"),
    ],
)
def test_foreign_code_is_named_and_not_run(tmp_path, content, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"would run code of its own, {name}: it is not read"):
        read_container(saved(tmp_path / "a.pth", content))
    assert not (tmp_path / "made-by-a-pickle").exists()


@pytest.mark.parametrize("name", ["OrderedDict.__init__", "OrderedDict.fromkeys.__func__", "abc.sys.modules"])
def test_names_within_names_are_no_way_round(tmp_path, name):
    short = bytes([len(name)]) + name.encode()
    for content in (f"ccollections\n{name}\n.".encode(), b"\x80\x04\x8c\x0bcollections\x8c" + short + b"\x93."):
        with pytest.raises(UserError, match=f"collections.{name}: it is not read"):
            read_container(zipped(tmp_path / "a.pth", content))


@pytest.mark.parametrize("name", ["torch._utils\n_rebuild_tensor_v2", "confection\nConfig", "collections\nOrderedDict"])
@pytest.mark.parametrize("state", ["}S'NAME'\nI1\ns", "N}S'NAME'\nI1\ns\x86"])
@pytest.mark.parametrize("attribute", ["__defaults__", "__code__", "__new__", "note"])
def test_what_stands_for_a_name_cannot_be_changed(tmp_path, name, state, attribute):
    path = zipped(tmp_path / "a.pth", f"c{name}\n{state.replace('NAME', attribute)}b.".encode("latin1"))
    before = [vars(one).copy() if hasattr(one, "__dict__") else None for one in ALLOWED.values()]
    with contextlib.suppress(UserError):
        read_container(path)
    assert [vars(one).copy() if hasattr(one, "__dict__") else None for one in ALLOWED.values()] == before
    assert container._tensor.__defaults__ is None


def test_files_of_other_kinds_are_told_apart(tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(UserError, match="There is no file"):
        read_container(path)
    path.write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"not a file in the zip format of torch.save; it is of another kind"):
        read_container(path)
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"a pickle, or of a torch before 1\.6"):
        read_container(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match=r"has no data\.pkl"):
        read_container(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95, 0.999])
def test_a_file_that_is_cut_short_is_said_to_be(tmp_path, share):
    path = saved(tmp_path / "a.pth", {"a": torch.randn(100, 100)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match="is cut short"):
        read_container(path)


def test_damaged_numbers_are_noticed(tmp_path):
    path = saved(tmp_path / "a.pth", {"a": torch.randn(100, 100)})
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"cannot be read.*CRC.*damaged"):
        read_container(path)


@pytest.mark.parametrize(
    ("size", "stride", "offset", "count"),
    [((5,), (1,), 0, 4), ((2, 2), (4, 1), 0, 4), ((2,), (1,), 3, 4), ((4,), (1,), 0, 400), ((2,), (-1,), 1, 4)],
)
def test_a_tensor_cannot_reach_beyond_its_numbers(tmp_path, size, stride, offset, count):
    class Storage:
        pass

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(obj, Storage) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"a": Tensor()})
    with pytest.raises(UserError, match="cannot be read"):
        read_container(zipped(tmp_path / "a.pth", buffer.getvalue(), [("0", b"\0" * 16)]))
