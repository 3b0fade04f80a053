"""The shape of the house: which room may import which, how long a file may be, what the wheel carries."""

import ast
import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "neuronx").rglob("*.py")) + sorted((ROOT / "callbacks").rglob("*.py"))

# A room may import itself, the rooms listed, and the leaves.
LEAVES = {
    "errors",
    "lazy",
    "types",
    "io",
    "schemas",
    "explanations",
    "scores",
    "preprocess",
    "cache",
    "chance",
    "latents",
    "download",
    "trainer",
    "checkpoints",
}
LEAVES |= {"__init__", "__version__"}
ROOMS = {"metrics", "targets", "data", "recording", "concepts", "methods", "simulation", "training", "report"}
MAY_IMPORT = {
    "experiments": ROOMS | {"milannotations", "pipeline"},
    "metrics": set(),
    "targets": set(),
    "data": set(),
    "recording": {"targets", "data", "metrics"},
    "concepts": {"recording", "targets", "data", "metrics"},
    "methods": {"recording", "concepts", "targets", "data", "metrics", "milannotations"},
    "simulation": {"recording", "concepts", "targets", "data", "metrics"},
    "training": {"methods", "milannotations", "recording", "concepts", "targets", "data", "metrics"},
    "milannotations": {"recording", "targets", "data", "metrics"},
    "report": {"metrics", "simulation", "concepts", "recording", "data", "milannotations"},
}


def imports(path: Path) -> set[str]:
    """Modules that a file imports when it runs, at any depth; imports for type checkers only do not count."""
    tree = ast.parse(path.read_text())
    checked = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in checked:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(path: Path) -> str:
    return path.relative_to(ROOT / "neuronx").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "neuronx")], ids=lambda p: str(p.name))
def test_imports_point_one_way(path):
    here = room(path)
    if here not in MAY_IMPORT:
        return
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("neuronx.")}
    wrong = rooms - LEAVES - {here} - MAY_IMPORT[here]
    assert not wrong, f"{path.relative_to(ROOT)} must not import {sorted(wrong)}"


def test_leaves_import_only_leaves():
    for name in LEAVES - {"__init__"}:
        path = ROOT / "neuronx" / f"{name}.py"
        if path.exists():
            rooms = {module.split(".")[1] for module in imports(path) if module.startswith("neuronx.")}
            assert rooms <= LEAVES, path


def test_no_method_imports_another():
    for path in (ROOT / "neuronx" / "methods").rglob("*.py"):
        own = path.relative_to(ROOT / "neuronx" / "methods").parts[0]
        for module in imports(path):
            if module.startswith("neuronx.methods."):
                assert module.split(".")[2] == own, path


def test_only_the_command_line_knows_hydra():
    for path in FILES:
        if path.name != "cli.py":
            assert not {m for m in imports(path) if m.split(".")[0] in ("hydra", "omegaconf")}, path


def test_only_targets_registers_hooks():
    for path in FILES:
        if path.name != "target.py":
            assert "register_forward_hook(" not in path.read_text(), path


def test_nothing_loads_what_strangers_wrote():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("eval", "exec", "pickle.load", "pickle.loads"), path
                if name == "torch.load":
                    options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    assert options.get("weights_only") == "True", path


def test_files_hold_one_idea():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 300, f"{path.relative_to(ROOT)} is over 300 lines"


def test_setup_lists_every_package():
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "neuronx").rglob("__init__.py")} | {
        f"neuronx.{name}" for name in ("callbacks", "checkpoints", "configs")
    }
    assert listed == found


def test_test_files_have_names_of_their_own():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)  # pytest imports them by that name
