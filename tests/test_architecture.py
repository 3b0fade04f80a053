"""The shape of the house: which room may import which, how long a file may be, what the wheel carries."""

import ast
import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "neuronx").rglob("*.py")) + sorted((ROOT / "callbacks").rglob("*.py"))

# A room may import itself, these leaves, and the rooms listed.
LEAVES = {"__version__", "first_used", "errors", "options", "types", "store", "progress"}
MAY_IMPORT = {
    "errors": set(),
    "options": set(),
    "types": set(),
    "progress": set(),
    "store": set(),
    "tables": set(),
    "metrics": {"tables"},
    "targets": {"tables"},
    "data": {"tables", "targets.preprocess", "targets.latents", "targets.calling"},
    "recording": {"targets", "data"},
    "concepts": {"recording", "targets", "data", "tables", "metrics"},
    "milannotations": {"recording", "targets", "data", "tables"},
    "methods": {"recording", "concepts", "targets", "data", "tables", "metrics", "milannotations"},
    "scoring": {"recording", "concepts", "targets", "data", "tables", "metrics"},
    "report": {"scoring", "recording", "targets", "concepts", "data", "tables", "metrics", "milannotations"},
}
MAY_IMPORT["experiments"] = set(MAY_IMPORT) - LEAVES
MAY_IMPORT["world"] = set(MAY_IMPORT) - LEAVES - {"experiments", "report", "world"} | {"checkpoints"}
MAY_IMPORT["command"] = set(MAY_IMPORT) - LEAVES - {"world"} | {"callbacks", "checkpoints", "configs"}
MAY_IMPORT["api"] = set(MAY_IMPORT) - LEAVES - {"world", "experiments"}


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere: at its top, in functions, and for type checkers only."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(path: Path) -> str:
    return path.relative_to(ROOT / "neuronx").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "neuronx")], ids=lambda p: str(p.name))
def test_imports_point_one_way(path):
    here = room(path)
    if here == "__init__":
        return
    file = str(path.relative_to(ROOT / "neuronx"))
    wrong = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "neuronx" and parts[1] not in LEAVES | {here}:
            allowed = MAY_IMPORT[here]
            if parts[1] not in allowed and ".".join(parts[1:3]) not in allowed:
                wrong.add(name)
    assert not wrong, f"{file} must not import {sorted(wrong)}"


def test_no_import_circle():
    """Not even through imports in functions or for type checkers only."""
    modules = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in FILES if p.is_relative_to(ROOT / "neuronx")
    }
    needs = {
        name: {found for one in imports(path) for found in (one, one.rpartition(".")[0]) if found in modules} - {name}
        for name, path in modules.items()
    }
    # Files that need nothing that is left are taken away, until nothing changes; what stays turns in circles.
    while free := {name for name, wanted in needs.items() if not wanted & needs.keys()}:
        needs = {name: wanted for name, wanted in needs.items() if name not in free}
    while loose := {name for name in needs if not any(name in wanted for wanted in needs.values())}:
        needs = {name: wanted for name, wanted in needs.items() if name not in loose}
    assert not needs, f"circles among {sorted(needs)}"


def test_no_method_imports_another():
    for path in (ROOT / "neuronx" / "methods").rglob("*.py"):
        own = path.relative_to(ROOT / "neuronx" / "methods").parts[0]
        for module in imports(path):
            if module.startswith("neuronx.methods."):
                assert module.split(".")[2] == own, path


def test_only_the_room_of_the_commands_knows_hydra():
    for path in FILES:
        if path.parent.name != "command":
            assert not {m for m in imports(path) if m.split(".")[0] in ("hydra", "omegaconf")}, path


FORWARD = re.compile(r"forward|__call__|_call_impl|__class__|_modules|_(forward|backward)\w*hooks\w*")
"""Attributes that decide what a module computes when it is called."""


def changes_of_a_forward(tree: ast.AST) -> list[str]:
    """Lines that change what a network computes: hooks, assigned attributes, bound functions, libraries of hooks."""
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            written = isinstance(node.ctx, ast.Store | ast.Del)
            hook = re.fullmatch(r"register_\w*hook|register_parametrization|MethodType", node.attr)
            if hook or (written and FORWARD.fullmatch(node.attr)):
                found.append(node)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            if re.search(r"__dict__$|_modules$|hooks$|^vars\(", ast.unparse(node.value)):
                found.append(node)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            arguments = [a.value if isinstance(a, ast.Constant) else None for a in node.args]
            if name in ("setattr", "delattr", "__setattr__", "__delattr__") and len(node.args) > 1:
                of, attribute = ast.unparse(node.args[0]), arguments[1]
                if of != "self" and (attribute is None or FORWARD.fullmatch(str(attribute))):
                    found.append(node)
            elif any(re.fullmatch(r"register_\w*hook", str(argument)) for argument in arguments):
                found.append(node)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if any(re.match(r"zennit|crp\b|MethodType|Torch\w*Mode|register_\w*hook", module) for module in modules):
                found.append(node)
    return [ast.unparse(node) for node in found]


def test_only_targets_changes_what_a_network_computes():
    for path in FILES:
        if not path.is_relative_to(ROOT / "neuronx" / "targets"):
            assert not changes_of_a_forward(ast.parse(path.read_text())), path


@pytest.mark.parametrize(
    "line",
    [
        "module.forward = run",
        "self.module.forward = run",
        "net.layer.forward, before = run, net.layer.forward",
        "del module.forward",
        "with opened() as module.forward: pass",
        "module.register_forward_hook(hook)",
        "hooks = [part.register_full_backward_hook for part in parts]",
        "module.register_forward_pre_hook(hook, with_kwargs=True)",
        "tensor.register_hook(print)",
        "torch.nn.modules.module.register_module_forward_hook(hook)",
        "from torch.nn.modules.module import register_module_forward_hook as hook",
        "setattr(module, 'forward', run)",
        "setattr(module, name, run)",
        "object.__setattr__(module, 'forward', run)",
        "module.__dict__['forward'] = run",
        "vars(module)['forward'] = run",
        "getattr(module, 'register_forward_hook')(run)",
        "module.run = types.MethodType(run, module)",
        "from types import MethodType",
        "type(module).__call__ = run",
        "module.__class__ = Other",
        "module._forward_hooks[0] = run",
        "net._modules['layer'] = other",
        "parametrize.register_parametrization(module, 'weight', other)",
        "from zennit.core import Composite",
        "from torch.overrides import TorchFunctionMode",
    ],
)
def test_every_way_to_change_a_forward_is_noticed(line):
    assert changes_of_a_forward(ast.parse(line))


def test_nothing_loads_what_strangers_wrote():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("eval", "exec", "pickle.load", "pickle.loads"), path
                if name == "torch.load":
                    options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    assert options.get("weights_only") == "True", path


def test_no_two_classes_have_one_name():
    names = [
        node.name
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted(set(names)) == sorted(names)


def test_files_hold_one_idea():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 500, f"{path.relative_to(ROOT)} is over 500 lines"


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
