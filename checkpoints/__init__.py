"""Trained weights of the embedded world, each with a card: what it is, how it was made, how good it is.

A trained part is three files of one stem: `<name>.safetensors` (the weights, matrices in half precision), `<name>.json`
(the card: what is needed to rebuild the module, the command, the data, the seeds, the seconds, the held-out figures)
and `<name>.md` (the same card for people).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.store.atomic import write_atomic

FOLDER = Path(__file__).resolve().parent
SUFFIXES = (".safetensors", ".json", ".md")


def find(name: str | Path) -> Path:
    """The weights file of a trained part, given its path or the name of a shipped one. Raises UserError otherwise."""
    path = Path(name)
    if path.suffix != ".safetensors":
        path = FOLDER / f"{name}.safetensors"
    if path.is_file():
        return path
    if path.parent == FOLDER:
        raise unknown("trained part", path.stem, sorted(file.stem for file in FOLDER.glob("*.safetensors")))
    raise UserError(f"There is no weights file {path}.")


def rounded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as they are stored: matrices and kernels in float16, biases and statistics as they are."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    return {name: t.half() if t.is_floating_point() and t.ndim > 1 else t for name, t in kept.items()}


def write(folder: Path, name: str, state: Mapping[str, Tensor], card: Mapping[str, Any]) -> Path:
    """Writes the three files of a trained part into `folder` and returns the path of the weights."""
    from safetensors.torch import save

    write_atomic(folder / f"{name}.json", (json.dumps(card, indent=1) + "\n").encode())
    write_atomic(folder / f"{name}.md", _page(name, card).encode())
    return write_atomic(folder / f"{name}.safetensors", save(rounded(state)))


def read(name: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights (floating point as float32) and the card of a trained part, given its path or shipped name."""
    from safetensors.torch import load_file

    path = find(name)
    card = path.with_suffix(".json")
    if not card.is_file():
        raise UserError(
            f"The weights {path} have no card {card.name} beside them, which says how to rebuild the module."
        )
    state = load_file(path)
    state = {key: tensor.float() if tensor.dtype == torch.float16 else tensor for key, tensor in state.items()}
    return state, json.loads(card.read_text())


def ship(weights: Path, folder: Path = FOLDER) -> Path:
    """Copies a trained part, the card before the weights, into `folder` (the shipped checkpoints by default)."""
    for suffix in reversed(SUFFIXES):
        write_atomic(folder / f"{weights.stem}{suffix}", weights.with_suffix(suffix).read_bytes())
    return folder / weights.name


def _page(name: str, card: Mapping[str, Any]) -> str:
    """The card as Markdown: one section for each block of it, one table row for each number."""
    lines = [f"# {name}", "", str(card["about"]), "", "```", str(card["command"]), "```", ""]
    for title in ("training", "figures"):
        lines += [f"## {title.capitalize()}", "", "| | |", "|---|---|"]
        lines += [f"| {key} | {value} |" for key, value in card[title].items()] + [""]
    return "\n".join(lines)
