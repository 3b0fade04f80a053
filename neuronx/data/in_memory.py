"""`InMemoryProbe`, and `probe_of`, which builds a Probe from a folder, tensor, list or Dataset."""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from neuronx.data.folder import FolderProbe
from neuronx.data.probe import Probe, Transform, splits_of
from neuronx.data.segmentation import Segmentation
from neuronx.errors import UserError, brief, in_python, unknown
from neuronx.progress import progress


class AsIs:
    """The transform of pictures that are a network's input already."""

    def __call__(self, picture: Tensor) -> Tensor:
        """Returns the same."""
        return picture

    def __repr__(self) -> str:
        return "AsIs()"


class InMemoryProbe(Probe):
    """Pictures from a tensor, a sequence or a map-style data set.

    Float pictures are taken as a network's input already: targets' transforms are not applied to them, and their domain
    is "tensors", which no CLIP knows.
    """

    def __init__(
        self,
        pictures: "Tensor | Sequence[Any] | Dataset",
        *,
        labels: Tensor | Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        hierarchy: Mapping[str, Sequence[int]] | None = None,
        name: str = "memory",
        domain: str = "natural",
        splits: int | str | Path = 0,
        segmentation: Segmentation | None = None,
        as_pictures: bool = False,
        batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        """Looks through the pictures once, to know what they are.

        Args:
            pictures: uint8 (N, 3, H, W); or float (N, C, H, W); or a sequence or data set of PIL pictures or (3, H, W)
                tensors, or of tuples that start with one and go on with a class index. It must give the same picture
                for the same index every time.
            labels: (N,) class indices; those of the data set by default.
            class_names: By index; `classes` of the data set, or the indices in words by default.
            hierarchy: Superclass to class indices.
            name: Used in tables.
            domain: The kind of pictures.
            splits: As in `splits_of`.
            segmentation: What each pixel shows, by the same rows.
            as_pictures: Hand uint8 tensors out as PIL pictures, for transforms that take no batches.
            batch_size: Of the loader.
            num_workers: Processes that load.

        Raises:
            UserError: If there are no pictures, or labels do not fit.
        """
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        _check_arguments(name, class_names, hierarchy, batch_size)
        self.name, self.pictures, self.as_pictures = name, pictures, as_pictures
        n = len(pictures)  # type: ignore[arg-type]
        if n == 0:
            raise UserError(f"`{name}` holds no pictures.")
        first, label = _parts(pictures[0])
        self.ready = isinstance(first, Tensor) and first.is_floating_point()
        self.domain = "tensors" if self.ready else domain
        found = _content(pictures, name)
        self._digest = found[0]
        if labels is None and label is not None:
            labels = found[1]
        if labels is not None:
            self.labels = _whole_numbers(labels, name)
            given = tuple(class_names) or tuple(getattr(pictures, "classes", ()))
            self.class_names = given or tuple(f"class {i}" for i in range(int(self.labels.max()) + 1))
            self._check_labels(n)
        self.hierarchy = dict(hierarchy or {})
        self.segmentation = segmentation
        self.splits = splits_of(splits, n, name)

    def _check_labels(self, n: int) -> None:
        labels = self.labels
        if labels is not None and labels.shape != (n,):
            raise UserError(f"`{self.name}` has {n} pictures but labels of shape {tuple(labels.shape)}.")
        if labels is not None and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.class_names):
            raise UserError(
                f"`{self.name}` has labels {int(labels.min())} to {int(labels.max())}, "
                f"but {len(self.class_names)} class names."
            )

    def __len__(self) -> int:
        return len(self.pictures)  # type: ignore[arg-type]

    def load(self, rows: Sequence[int]) -> Tensor | list[Image.Image]:
        """The pictures: a batch (B, 3, H, W) where they are tensors of one size, else PIL pictures in RGB."""
        if isinstance(self.pictures, Tensor):
            batch = self.pictures[list(rows)]
            return [_pil(one) for one in batch] if self.as_pictures else batch
        found = [_parts(self.pictures[row])[0] for row in rows]
        if isinstance(found[0], Tensor):
            found = found if self.ready else [one.expand(3, -1, -1) for one in found]
            return torch.stack(found) if self.ready else [_pil(one) for one in found]
        return [one.convert("RGB") for one in found]

    def loader(self, transform: Transform, rows: Tensor | None = None, **options: Any) -> DataLoader:
        """As any probe's; float pictures are left as they are."""
        return super().loader(AsIs() if self.ready else transform, rows, **options)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all pixels, in order."""
        return self._digest


@in_python
def probe_of(images: "str | Path | Tensor | Sequence[Any] | Dataset | Probe", **options: Any) -> Probe:
    """A probe of whatever the caller has: a folder, a tensor, a list of pictures, a data set, or a probe.

    Args:
        images: The pictures.
        options: Of `FolderProbe` for a folder, of `InMemoryProbe` otherwise, such as `labels`, `class_names`,
            `hierarchy` or `splits`.
    """
    if isinstance(images, Probe):
        return images
    folder = isinstance(images, str | Path)
    known = inspect.signature(FolderProbe if folder else InMemoryProbe).parameters
    for name in options:
        if name not in known:
            raise unknown("argument of probe_of", name, known)
    if isinstance(images, str | Path):
        if not str(images):
            raise UserError("images is an empty text: give the path of a folder.")
        return FolderProbe(images, **options)
    if isinstance(images, Tensor):
        if images.ndim != 4 or (images.shape[1] not in (1, 3) and not images.is_floating_point()):
            raise UserError(
                f"Pictures must be a tensor (N, 3, H, W) or (N, 1, H, W), not {tuple(images.shape)}; floats, which are "
                "fed as they are, may have any number of channels."
            )
        if images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
            raise UserError(
                f"Pictures must be a tensor (N, 3, H, W), not {tuple(images.shape)}, which looks like (N, H, W, 3): "
                "give images.permute(0, 3, 1, 2)."
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise UserError(f"Pictures must be uint8, or floats that are fed as they are, not {images.dtype}.")
        if images.is_floating_point() and not bool(images.isfinite().all()):
            raise UserError("Pictures hold values that are NaN or infinite.")
        # Grey pictures count as pictures in RGB; floats are a network's input.
        images = images.float() if images.is_floating_point() else images.expand(-1, 3, -1, -1)
    elif isinstance(images, Mapping | np.ndarray) or not isinstance(images, Sequence | Dataset) or not _counted(images):
        raise UserError(
            f"images={brief(images)} is none of these: a folder, a tensor (N, 3, H, W), a list of pictures, a data set "
            "that has a length, a Probe."
        )
    return InMemoryProbe(images, **options)


def _counted(images: Any) -> bool:
    try:
        return len(images) >= 0
    except (TypeError, NotImplementedError):
        return False


def _check_arguments(name: Any, class_names: Any, hierarchy: Any, batch_size: Any) -> None:
    if not isinstance(name, str) or not name:
        raise UserError(f"name={name!r} is no name for tables.")
    if isinstance(class_names, str) or not all(isinstance(one, str) for one in class_names):
        raise UserError(f"class_names={brief(class_names)} is no list of names, one for each class.")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(f"batch_size={batch_size!r} is no number of pictures.")
    covered = list(hierarchy.values()) if isinstance(hierarchy, Mapping) else [] if hierarchy is None else [None]
    if not all(isinstance(classes, Sequence) and all(isinstance(one, int) for one in classes) for classes in covered):
        raise UserError(f"hierarchy={brief(hierarchy)} is no dict from superclasses to lists of class indices.")


def _whole_numbers(labels: Any, name: str) -> Tensor:
    """Class indices as a tensor."""
    try:
        found = torch.as_tensor(labels)
        exact = found.to(torch.int64)
        fine = not found.is_complex() and bool((found == exact).all())
    except (TypeError, ValueError, RuntimeError):
        fine = False
    if not fine:
        raise UserError(f"labels of `{name}` must be class indices, one whole number a picture, not {brief(labels)}.")
    return exact


def _content(pictures: Any, name: str) -> tuple[str, list[Any]]:
    """The digest of all pixels, and the labels where the items have them."""
    content = hashlib.sha256()
    labels: list[Any] = []
    shape: tuple[int, ...] = ()
    if isinstance(pictures, Tensor):
        content.update(f"{pictures.dtype} {tuple(pictures.shape)}".encode())
        for part in pictures.split(256):
            content.update(part.contiguous().numpy().tobytes())
        return content.hexdigest(), labels
    for index in progress(range(len(pictures)), f"reading {name}"):
        picture, label = _parts(pictures[index])
        if not isinstance(picture, Image.Image) and not _is_picture(picture):
            what = f"a tensor {tuple(picture.shape)}" if isinstance(picture, Tensor) else f"{brief(picture)}"
            raise UserError(f"Picture {index} of `{name}` is {what}; expected a PIL picture or a tensor (3, H, W).")
        array = picture.numpy() if isinstance(picture, Tensor) else np.asarray(picture.convert("RGB"))
        shape = shape or array.shape
        if isinstance(picture, Tensor) and picture.is_floating_point() and array.shape != shape:
            raise UserError(f"Pictures 0 and {index} of `{name}` differ in size; floats are fed as they are.")
        content.update(f"{array.dtype} {array.shape}".encode())
        content.update(np.ascontiguousarray(array).tobytes())
        if label is not None:
            labels.append(label)
    return content.hexdigest(), labels


def _is_picture(picture: Any) -> bool:
    """Whether something is a tensor (C, H, W) of three channels or one, or of any number where it is fed as it is."""
    if not isinstance(picture, Tensor) or picture.ndim != 3:
        return False
    return picture.is_floating_point() or picture.shape[0] in (1, 3)


def _parts(item: Any) -> tuple[Any, Any]:
    """An item of a data set as picture and label or None."""
    if isinstance(item, tuple | list):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
