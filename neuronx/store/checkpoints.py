"""Trained weights with a card that says what they are, how they were made, how good they are and how to load them.

A trained part is three files of one stem: `<name>.safetensors` (the weights, matrices in half precision), `<name>.json`
(the card: what is needed to rebuild the module, the command, the data, the seeds, the seconds, the held-out figures)
and `<name>.md` (the same card for people).

A card may name the function that loads the part, as in `"load": "neuronx.world.clip.load"`. It must be a function
called `load` of a module of this package, so that a card that a stranger wrote cannot run code of the stranger's.
"""

import json
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.store.cache import write_atomic

_PACKAGE = Path(__file__).resolve().parents[1]
# Of the shipped parts: a wheel carries it inside the package, a checkout beside it.
FOLDER = next(f for f in (_PACKAGE / "checkpoints", _PACKAGE.parent / "checkpoints") if f.is_dir())
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


def sorted_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with its metadata in alphabetical order: the library's own changes from process to process."""
    from safetensors.torch import save

    data = save(dict(tensors), dict(metadata))
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps({**json.loads(data[8:end]), "__metadata__": dict(sorted(metadata.items()))}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[end:]


def read(name: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights (floating point as float32) and the card of a trained part, given its path or shipped name."""
    from safetensors.torch import load_file

    card, state = read_card(name), load_file(find(name))
    return {key: t.float() if t.dtype == torch.float16 else t for key, t in state.items()}, card


def read_card(name: str | Path) -> dict[str, Any]:
    """The card of a trained part, given its path or shipped name."""
    path = find(name)
    card = path.with_suffix(".json")
    if not card.is_file():
        raise UserError(
            f"The weights {path} have no card {card.name} beside them, which says how to rebuild the module."
        )
    return json.loads(card.read_text())


def load(name: str | Path) -> Any:
    """The trained part, as the function makes it that its card names, given its path or shipped name.

    Raises:
        UserError: No such part, or a card that names no function `load` of this package.
    """
    path, place = find(name), str(read_card(name).get("load", ""))
    module, _, function = place.rpartition(".")
    if re.fullmatch(r"neuronx(\.[a-z][a-z_]*)+\.load", place):
        try:
            found = getattr(import_module(module), function, None)
        except ModuleNotFoundError:
            found = None
        if callable(found) and getattr(found, "__module__", "") == module:
            return found(path)
    raise UserError(
        f'The card {path.with_suffix(".json")} has "load": "{place}"; expected a function `load` of neuronx, such as '
        "neuronx.world.networks.load."
    )


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
