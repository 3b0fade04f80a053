"""What a configuration calls is looked at before the call."""

import os
import sys

import pytest
from hydra import compose, initialize_config_module

from neuronx.command import cli
from neuronx.command.registry import build
from neuronx.errors import UserError
from neuronx.store.named import never_needed
from neuronx.targets import custom

STRANGERS = """
os.mkdir posix.mkdir subprocess.run builtins.exec builtins.print importlib.import_module runpy.run_path shutil.rmtree
pickle.load torch.load torch.serialization.load torch.hub.load torch.os.mkdir torch.utils.cpp_extension.load
torch.utils.collect_env.run numpy.load numpy.save numpy.f2py.os.mkdir numpy.memmap pandas.read_pickle sys.exit
ctypes.CDLL socket.socket webbrowser.open code.interact hydra.utils.get_method hydra.utils.call
omegaconf.OmegaConf.load neuronx.store.cache.write_atomic neuronx.targets.weights.os.mkdir
neuronx.targets.custom.importlib.import_module neuronx.command.cli.evaluate pathlib.Path.write_text
torch.nn.modules.module.torch.load functools.partial neuronx.report.loggers.Path.mkdir collections.OrderedDict
mypackage_.mkdir mypackage_.shell mypackage_.run
"""


@pytest.fixture
def mypackage(tmp_path, monkeypatch):
    """A package whose names are those of others."""
    (tmp_path / "mypackage_.py").write_text(
        "import functools, os, subprocess\nfrom os import mkdir\nfrom subprocess import run\n"
        "shell = functools.partial(os.system, 'mkdir made')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("mypackage_", None)


@pytest.mark.parametrize("path", STRANGERS.split())
def test_strangers_are_not_called(path, mypackage):
    nested = {"_target_": "neuronx.data.folder.FolderProbe", "root": [{"deep": {"_target_": path, "_args_": ["made"]}}]}
    for node in ({"_target_": path, "_args_": ["made"]}, {"_target_": path, "_partial_": True}, nested):
        with pytest.raises(UserError, match="is not called: a configuration names networks, methods and data"):
            build(node)
    with pytest.raises(UserError, match=r"is not called|there is no module"):
        custom.load(path, arguments={"path": "made"}, transform="none")
    assert sorted(p.name for p in mypackage.iterdir() if p.name != "__pycache__") == ["mypackage_.py"]


def test_a_resolver_makes_no_way_round(mypackage):
    from omegaconf import OmegaConf

    cfg = OmegaConf.create({"a": "${oc.create:${oc.env:EVIL}}"})
    os.environ["EVIL"] = "{_target_: os.mkdir, path: made}"
    try:
        with pytest.raises(UserError, match="is not called"):
            build(cfg)
    finally:
        del os.environ["EVIL"]
    assert not (mypackage / "made").exists()


def test_hydras_own_part_of_a_strangers_yaml(tmp_path):
    (tmp_path / "data").mkdir()
    for header, content in [("# @package hydra\n", "callbacks"), ("# @package _global_\n", "hydra:\n  callbacks")]:
        inner = "  " * content.count("\n")
        (tmp_path / "data" / "evil.yaml").write_text(
            f"{header}{content}:\n{inner}  x:\n{inner}    _target_: torch.os.mkdir\n{inner}    path: {tmp_path}/made\n"
        )
        with (
            pytest.raises(UserError, match="is not called"),
            initialize_config_module("neuronx.configs", version_base="1.3"),
        ):
            compose("evaluate", overrides=[f"hydra.searchpath=['file://{tmp_path}']", "data=evil"])
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "path", ["neuronx.nothing.at.all", "nopackage_.Net", "neuronx.data", "neuronx.data.folder.log"]
)
def test_what_cannot_be_called_is_one_line(path):
    with pytest.raises(UserError, match=r"cannot be imported|a class or function is needed|is not called"):
        build({"_target_": path})


def test_what_our_own_configurations_name_is_called():
    """So are networks, transforms and optimisers of others."""
    from neuronx.command.callables import check_names, named

    with initialize_config_module("neuronx.configs", version_base="1.3"):
        for root in ("evaluate", "train"):
            check_names(cli.plain(compose(root), resolve=False))
    for path in (
        "torch.nn.Linear",
        "torchvision.models.resnet18",
        "timm.create_model",
        "torch.optim.Adam",
        "lightning.Trainer",
    ):
        assert callable(named(path))
    assert not never_needed("mynets.Net") and not never_needed("neuronx.report.loggers.CsvLog")
