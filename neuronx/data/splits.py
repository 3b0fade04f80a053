"""Fixed splits: drawn from a seed, or read from published id files."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from neuronx.data.probe import seeded_splits
from neuronx.data.published import published
from neuronx.errors import UserError

log = logging.getLogger(__name__)

PARTS = ("train", "val", "test")


def splits_of(how: int | str | Path | None, n: int, name: str, kept: Tensor | None = None) -> dict[str, Tensor]:
    """The rows of train, val and test.

    Args:
        how: A seed (None is 0), for 70/10/20 at random; a folder with train_ids.pt, val_ids.pt and test_ids.pt (1-D
            int64 tensors of positions in the full list of images); or "published", for those of Linear Explanations.
        n: Number of images listed.
        name: Of the data, which decides what "published" means.
        kept: (M,) positions of the images that could be read, where some could not; rows count these.

    Raises:
        UserError: If files are missing, or ids overlap or are out of range.
    """
    kept = torch.arange(n) if kept is None else kept
    if how is None or isinstance(how, int):
        return seeded_splits(len(kept), how or 0)
    if not isinstance(how, str | Path):
        raise UserError(f"splits={how!r} is neither a seed nor a folder of three id files.")
    folder = _published(name) if how == "published" else Path(how).expanduser()
    ids = {part: _ids(folder / f"{part}_ids.pt", n, name) for part in PARTS}
    together = torch.cat(list(ids.values()))
    if len(together.unique()) < len(together):
        raise UserError(f"The splits in {folder} overlap: an image may be in one of train, val and test only.")
    if len(together) < n:
        log.warning("splits of %s: %d of %d images are in no split", name, n - len(together), n)
    row = torch.full((n,), -1).scatter(0, kept, torch.arange(len(kept)))
    return {part: rows[rows >= 0].sort().values for part, rows in ((part, row[ids[part]]) for part in PARTS)}


def _published(name: str) -> Path:
    instead = "take a seeded split with data.splits=0, or a folder of id files with data.splits=DIR"
    for part in PARTS:
        path = published(f"splits/{name}/{part}_ids.pt", instead)
    return path.parent


def _ids(path: Path, n: int, name: str) -> Tensor:
    try:
        ids = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"There is no split file {path}; data.splits= is a seed or a folder of three id files."
        ) from None
    except Exception as error:
        raise UserError(f"{path} is not a tensor of ids: {str(error).splitlines()[0]}") from None
    if not isinstance(ids, Tensor) or ids.ndim != 1 or ids.dtype != torch.int64:
        raise UserError(f"{path} is not a 1-D int64 tensor of ids.")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < n:
        raise UserError(
            f"{path} names images {int(ids.min())} to {int(ids.max())}, but `{name}` has {n} (0 to {n - 1})."
        )
    return ids
