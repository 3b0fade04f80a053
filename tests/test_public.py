"""The public names: in one table, typed, and few enough to be read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import neuronx
import neuronx.experiments
import neuronx.methods.milan
import neuronx.milannotations

HERE = Path(neuronx.__file__).parent


@pytest.mark.parametrize("package", [neuronx, neuronx.milan, neuronx.milannotations, neuronx.experiments])
def test_public_names_exist(package):
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="has no attribute `explane`"):
        _ = package.explane


def test_the_types_are_of_the_same_names():
    stub = (HERE / "__init__.pyi").read_text()
    typed = dict.fromkeys(re.findall(r"(\w+) as \1\b", stub))
    assert set(typed) == {*neuronx._PUBLIC, *neuronx._PACKAGES}
    for module, names in re.findall(r"from neuronx\.([\w.]+) import \(?((?:\s*\w+ as \w+,?)+)", stub):
        for name in re.findall(r"(\w+) as", names):
            assert {**neuronx._PUBLIC, "milan": "methods"}[name] == module


def test_importing_waits_for_nothing():
    code = "import sys, neuronx; print({'torch', 'lightning', 'hydra', 'pandas', 'wandb'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_help_says_how_to_start():
    for word in ("study(model, images", "study.explain", "study.score", "neuronx.probe_of", "UserError"):
        assert word in neuronx.__doc__


@pytest.mark.slow
def test_mypy_finds_a_misspelt_name_and_a_wrong_argument(tmp_path):
    file = tmp_path / f"{tmp_path.parent.name.replace('-', '_')}.py"  # a name that mypy has not cached
    file.write_text(
        "import neuronx\n"
        "from torch import nn\n"
        "neuronx.explane(nn.ReLU(), 'folder')\n"
        "neuronx.study(nn.ReLU(), 'folder', layr='layer4')\n"
        "neuronx.study(nn.ReLU(), 'folder', layer=4)\n"
        "study = neuronx.study(nn.ReLU(), 'folder', layer='layer4')\n"
        "study.explain(3)\n"
        "reveal_type(study.explain('le_label')[0].terms)\n"
    )
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--no-error-summary", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    lines: dict[int, str] = {}
    for line in done.stdout.splitlines():
        if line.startswith(str(file)):
            lines[int(line.split(":")[1])] = lines.get(int(line.split(":")[1]), "") + line
    assert "explane" in lines[3] and "layr" in lines[4] and '"layer"' in lines[5] and "Argument 1" in lines[7]
    assert "tuple[tuple[" in lines[8] and set(lines) == {3, 4, 5, 7, 8}, done.stdout
