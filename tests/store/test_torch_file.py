"""Files of torch.save and pickles are read without running anything in them."""

import argparse
import contextlib
import datetime
import enum
import functools
import io
import os
import pathlib
import pickle
import subprocess
import zipfile
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from neuronx.errors import UserError
from neuronx.store import torch_file
from neuronx.store.torch_file import KNOWN, Foreign, read_torch_file


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
    found = read_torch_file(saved(tmp_path / "a.pth", content))
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
    found = read_torch_file(path)["nlp"][0]
    assert found == dict(config) and type(found).__module__.startswith("neuronx")


class Evil:
    """What runs when it is unpickled."""

    def __init__(self, call, *arguments):
        self.how = call, arguments

    def __reduce__(self):
        return self.how


EVIL = {
    "a call": (Evil(os.mkdir, "made-by-a-pickle"), r"(posix|nt)\.mkdir"),
    "among weights": ({"state_dict": {}, "x": [Evil(os.system, "mkdir made-by-a-pickle")]}, r"(posix|nt)\.system"),
    "a name alone": (eval, r"(__builtin__|builtins)\.eval"),
    "a process": (Evil(subprocess.Popen, ["mkdir", "made-by-a-pickle"]), r"(subprocess|commands)\.Popen"),
    "source code": (Evil(exec, "import os; os.mkdir('made-by-a-pickle')"), r"(__builtin__|builtins)\.exec"),
    "a file": (Evil(open, "made-by-a-pickle", "w"), r"(_?io|__builtin__|builtins)\.open"),
}


@pytest.mark.parametrize(("content", "name"), EVIL.values(), ids=EVIL)
@pytest.mark.parametrize("new", [True, False])
def test_code_is_named_and_not_run(tmp_path, content, name, new, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(content))
    for file in ("a.pth", "plain.pkl"):
        with pytest.raises(UserError, match=f"would run code of its own, {name}: it is not read"):
            read_torch_file(tmp_path / file)
    assert not (tmp_path / "made-by-a-pickle").exists()


def touched(path):
    pathlib.Path(path).touch()


def test_calls_of_unknown_functions_stay_words(tmp_path, monkeypatch):
    """Functions of a package of one's own, also by way of others: none of them is imported or called."""
    monkeypatch.chdir(tmp_path)
    by_hand = b"cpathlib\nPath\n(S'made'\ntRctests.store\ntouched\n(S'made'\ntR."
    for content in (Evil(touched, "made"), functools.partial(touched, "made"), {"x": [Evil(map, touched, ["made"])]}):
        assert read_torch_file(saved(tmp_path / "a.pth", content)) is not None
    (tmp_path / "b.pkl").write_bytes(by_hand)
    assert isinstance(read_torch_file(tmp_path / "b.pkl"), Foreign)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b.pkl"]


class Colour(enum.Enum):
    RED = 1


class Config(dict):
    pass


def test_what_trainers_put_beside_weights_is_kept_as_words(tmp_path):
    weights = {"a": torch.ones(2)}
    beside = {
        "numpy": [np.float64(0.9), np.int64(3), np.zeros(3), np.array(["x"], dtype=object)],
        "namespace": argparse.Namespace(lr=0.1, out=pathlib.Path("/tmp")),
        "omegaconf": OmegaConf.create({"lr": 0.1, "layers": [1, 2]}),
        "times": [datetime.datetime.now(), datetime.timedelta(1)],
        "containers": [defaultdict(list, a=[1]), Counter("aab"), {1, 2}, frozenset("a"), Config(x=Config(y=1))],
        "kinds": [
            torch.float32,
            torch.Size((1, 2)),
            torch.device("cpu"),
            Colour.RED,
            complex(1, 2),
            slice(3),
            range(3),
        ],
        "functions": [functools.partial(torch.optim.Adam, lr=1), torch.nn.ReLU, test_code_is_named_and_not_run],
        "module": torch.nn.Linear(2, 2),
        "cycle": [],
    }
    beside["cycle"].append(beside)
    for new in (True, False):
        torch.save({"state_dict": weights, **beside}, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        found = read_torch_file(tmp_path / "a.pt")
        assert torch.equal(found["state_dict"]["a"], weights["a"])
        assert found["namespace"].name == "argparse.Namespace" and found["namespace"].state["lr"] == 0.1
        assert found["containers"][0] == {"a": [1]} and found["cycle"][0]["namespace"] is found["namespace"]
        assert torch.equal(found["numpy"][2].tensor, torch.zeros(3).double()) and found["numpy"][3].tensor is None


@pytest.mark.parametrize("name", ["OrderedDict.__init__", "OrderedDict.fromkeys.__func__", "abc.sys.modules"])
def test_names_within_names_are_no_way_round(tmp_path, name):
    short = bytes([len(name)]) + name.encode()
    for content in (f"ccollections\n{name}\n.".encode(), b"\x80\x04\x8c\x0bcollections\x8c" + short + b"\x93."):
        assert issubclass(read_torch_file(zipped(tmp_path / "a.pth", content)), Foreign)


def test_tensors_of_every_age_and_kind(tmp_path):
    kinds = [torch.float64, torch.bfloat16, torch.complex64, torch.uint16, torch.float8_e4m3fn, torch.bool]
    content = {
        "kinds": [torch.ones(3).to(dtype) for dtype in kinds],
        "whole": torch.arange(6.0),
        "quantised": torch.quantize_per_tensor(torch.tensor([1.0, 2.0]), 0.5, 3, torch.qint8),
        "channels": torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.quint8),
    }
    content["part"] = content["whole"][2:4]
    for new in (True, False):
        torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        found = read_torch_file(tmp_path / "a.pt")
        for before, after in zip(content["kinds"], found["kinds"], strict=True):
            assert after.dtype == before.dtype and torch.equal(after.float(), before.float())
        assert torch.equal(found["part"], content["part"])
        for name in ("quantised", "channels"):
            assert torch.equal(found[name].dequantize(), content[name].dequantize())


def test_arrays_of_numpy_in_a_pickle(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.ones((2, 3), np.float16)),
        "c": np.int64([1]),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": arrays}, protocol=2))
    for name, tensor in read_torch_file(tmp_path / "a.pkl")["model"].items():
        assert torch.equal(tensor.tensor, torch.from_numpy(np.ascontiguousarray(arrays[name])))


def test_files_without_checksums_are_read(tmp_path, monkeypatch):
    torch.serialization.set_crc32_options(False)
    try:
        saved(tmp_path / "a.pt", {"a": torch.ones(2)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_torch_file(tmp_path / "a.pt")["a"], torch.ones(2))


@pytest.mark.parametrize("name", ["torch._utils\n_rebuild_tensor_v2", "confection\nConfig", "collections\nOrderedDict"])
@pytest.mark.parametrize("state", ["}S'NAME'\nI1\ns", "N}S'NAME'\nI1\ns\x86"])
@pytest.mark.parametrize("attribute", ["__defaults__", "__code__", "__new__", "note"])
def test_what_stands_for_a_name_cannot_be_changed(tmp_path, name, state, attribute):
    path = zipped(tmp_path / "a.pth", f"c{name}\n{state.replace('NAME', attribute)}b.".encode("latin1"))
    before = [vars(one).copy() if hasattr(one, "__dict__") else None for one in KNOWN.values()]
    with contextlib.suppress(UserError):
        read_torch_file(path)
    assert [vars(one).copy() if hasattr(one, "__dict__") else None for one in KNOWN.values()] == before
    assert torch_file._tensor.__defaults__ is None


def test_files_of_other_kinds_are_told_apart(tmp_path):
    path = tmp_path / "a.pth"
    for content, message in [
        (None, "There is no weights file"),
        (b"", "is empty"),
        (b"<html>", "a web page"),
        (b"garbage", "of another kind"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "is a git-lfs pointer"),
    ]:
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_torch_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match=r"has no data\.pkl"):
        read_torch_file(path)
    torch.jit.script(torch.nn.Linear(1, 1)).save(path)
    with pytest.raises(UserError, match=r"torch\.jit\.save wrote"):
        read_torch_file(path)
    os.mkfifo(tmp_path / "pipe")
    for odd, message in [("pipe", "a pipe or a device"), (".", "is a folder"), ("/dev/zero", "a pipe or a device")]:
        with pytest.raises(UserError, match=message):
            read_torch_file(tmp_path / odd)
    with pytest.raises(UserError, match="is empty"):
        read_torch_file("/proc/self/mem")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95, 0.999])
def test_a_file_that_is_cut_short_is_said_to_be(tmp_path, share):
    path = saved(tmp_path / "a.pth", {"a": torch.randn(100, 100)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match="is cut short"):
        read_torch_file(path)


def test_damaged_numbers_are_noticed(tmp_path):
    path = saved(tmp_path / "a.pth", {"a": torch.randn(100, 100)})
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"cannot be read.*CRC.*damaged"):
        read_torch_file(path)


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
        read_torch_file(zipped(tmp_path / "a.pth", buffer.getvalue(), [("0", b"\0" * 16)]))
