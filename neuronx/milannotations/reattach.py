"""Brings ImageNet's images back to exemplars that are published without them, cropped as their masks were made."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from neuronx.data.class_folders import class_folders
from neuronx.data.files import open_rgb
from neuronx.data.imagenet import PLACES, list_images
from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.milannotations.layer import layers_in, mapped, read_ids
from neuronx.milannotations.write import npy
from neuronx.progress import progress
from neuronx.recording.pictures import View, gallery
from neuronx.store.cache import write_atomic
from neuronx.targets.preprocess import Preprocess

VALIDATION_IMAGES = 50_000
RESIZE, CROP = 256, 224
"""What the networks saw when the masks were made: the short side scaled, the centre kept."""
CHUNK_BYTES = 16 * 2**20


def attach(
    folder: str | Path,
    pictures: Sequence[Path],
    *,
    layers: Sequence[str] | None = None,
    squash: bool = False,
    force: bool = False,
) -> list[Path]:
    """Writes `images.npy` for the layers of a model, from the numbers in `ids.csv` and the pictures they count.

    Each picture of a layer is opened once; they are kept in an unlinked temporary file on the folder's disk,
    150 kB each, until the layer is written. In memory there are a few units at a time.

    Args:
        folder: Of the model.
        pictures: All files of the data set, in its order.
        layers: Only these; by default all.
        squash: Squash pictures to the square, as MILAN's code did, although the masks then lie beside what they mark.
        force: Write anew where there are images already.

    Returns:
        The files written.

    Raises:
        UserError: If masks or numbers are missing or wrong, a number is beyond the last picture, a picture does not
            decode, or the disk is full.
    """
    root = Path(folder).expanduser()
    written = []
    try:
        for name in progress(layers_in(root) if layers is None else list(layers), f"images of {root.name}"):
            path = root / name / "images.npy"
            with FileLock(root / f".{name}.lock"):
                if force or not path.is_file():
                    written.append(_attach(path, pictures, squash))
    except OSError as error:
        raise UserError(f"{root}: images cannot be written ({error.strerror or error}).") from error
    return written


def imagenet_pictures(root: str | Path, count: int | None = None) -> list[Path]:
    """ImageNet's validation images in the order that MILANNOTATIONS count them: by WordNet id, then by file name.

    Args:
        root: Folder of the images, or one that holds them as `val`: a folder for each class, or flat beside a ground
            truth file.
        count: How many there must be, since one too few shifts all that follow: 50,000 by default.

    Raises:
        UserError: If there is another number of images, or nothing tells the classes of flat ones.
    """
    root, count = Path(root).expanduser(), VALIDATION_IMAGES if count is None else count
    folder = next((root / place for place in PLACES if (root / place).is_dir()), root)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} with ImageNet's validation images.")
    listing = class_folders(folder)
    if listing.labels is None:
        listing = list_images(root)
    if listing.labels is None:
        raise UserError(
            f"{folder} holds images without their classes; expected a folder for each WordNet id, or the ground truth "
            "file beside the images."
        )
    if len(listing.paths) != count:
        raise UserError(
            f"{folder} holds {len(listing.paths)} images, and ids.csv counts through all {count}; with others the "
            "numbers would mean other images."
        )
    order = sorted(range(count), key=lambda at: (listing.labels[at], listing.paths[at]))  # type: ignore[index]
    return [listing.folder / listing.paths[at] for at in order]


def _attach(path: Path, pictures: Sequence[Path], squash: bool) -> Path:
    units, k, _, height, width = mapped(path.with_name("masks.npy"), 1).shape
    if height != width:
        raise UserError(f"{path.with_name('masks.npy')}: ImageNet's images are square here, not {height} x {width}.")
    numbers = path.with_name("ids.csv")
    ids = torch.from_numpy(read_ids(numbers, units, k))
    if (beyond := (ids >= len(pictures)).any(1)).any():
        line = int(beyond.nonzero()[0])
        raise UserError(f"{numbers}, line {line + 1}: image {int(ids[line].max())} of {len(pictures)}.")
    transform = Preprocess(resize=(height, width)) if squash else Preprocess(resize=RESIZE, crop=CROP)
    kept = gallery(ids, _Source(pictures, View(transform, height)), View(Preprocess(), height), path.parent)
    chunks = ids.split(max(1, CHUNK_BYTES // (3 * k * height * width)))
    return write_atomic(path, npy((units, k, 3, height, width), (kept.of(some) for some in chunks)))


class _Source(Probe):
    """Files of pictures, opened by threads: decoding and resizing let other threads run."""

    def __init__(self, pictures: Sequence[Path], shown: View) -> None:
        super().__init__()
        self.pictures, self.shown = pictures, shown

    def __len__(self) -> int:
        return len(self.pictures)

    def load(self, rows: Sequence[int]) -> Tensor:
        with ThreadPoolExecutor() as pool:
            return torch.stack(list(pool.map(self._one, rows)))

    def _one(self, row: int) -> Tensor:
        try:
            picture = open_rgb(self.pictures[row], upright=False)  # as the networks saw it that the masks are of
        except Exception as error:  # what PIL raises on damaged files is of a dozen kinds
            raise UserError(f"{self.pictures[row]} does not decode: {error}.") from error
        return self.shown(picture)
