"""What the README says is true."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def commands(script: str) -> list[list[str]]:
    """The arguments of every call of a script in the README's blocks and table, without comments."""
    import shlex

    joined = re.sub(r"\\\n\s*", " ", README)
    found = re.findall(rf"{script}\.py ([^\n`]*?)(?:\s+#[^\n]*)?(?:`|\n|\s\(see)", joined)
    return [shlex.split(one) for one in found]


def composable(arguments: list[str]) -> bool:
    return not any(word in ("...", "--help", "--config-dir") or word.startswith("--") for word in arguments)


@pytest.mark.parametrize("arguments", [a for a in commands("evaluate") if composable(a)], ids=" ".join)
def test_every_evaluate_command_composes(arguments):
    from neuronx.command.cli import rewrite

    with initialize_config_module("neuronx.configs", version_base="1.3"):
        compose("evaluate", overrides=[out for one in arguments for out in rewrite(one)])


@pytest.mark.parametrize("arguments", [a for a in commands("train") if composable(a)], ids=" ".join)
def test_every_train_command_composes(arguments):
    from neuronx.command.cli import chosen_task, rewrite

    with initialize_config_module("neuronx.configs", version_base="1.3"):
        chosen_task(compose("train", overrides=[out for one in arguments for out in rewrite(one)]))


def test_the_python_example_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "score correlation" in printed and "shuffled-le_label" in printed and "cat OR car" in printed
    assert (tmp_path / "results/mine/leaderboard.csv").exists()


def test_there_are_commands_to_test():
    assert len(commands("evaluate")) >= 12 and len(commands("train")) >= 5
