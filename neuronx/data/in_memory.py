"""`InMemoryProbe`, and `probe_of`, which builds a Probe from a folder, tensor, list or Dataset."""

import hashlib
import inspect
from collections import Counter
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
from neuronx.data.items import Targets, check_readable, classes_of, item, targets_of, tensor_of
from neuronx.data.pixels import Scale, extent, is_deep, rgb, scale_of, turned
from neuronx.data.probe import Probe, Transform, splits_of
from neuronx.data.segmentation import Segmentation
from neuronx.errors import UserError, brief, first_line, in_python, unknown
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
        labels: Tensor | Sequence[Any] | str | None = None,
        class_names: Sequence[str] = (),
        hierarchy: Mapping[str, Sequence[int]] | None = None,
        name: str = "memory",
        domain: str = "natural",
        splits: int | str | Path = 0,
        segmentation: Segmentation | None = None,
        as_pictures: bool = False,
        upright: bool = True,
        batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        """Looks through the pictures once, to know what they are.

        Args:
            pictures: uint8 (N, 3, H, W); or float (N, C, H, W); or a sequence or data set of pictures, of tuples that
                start with one and go on with its target, or of mappings that have it as `image` or the like and
                `label` or the like. A picture is PIL's, a tensor (3, H, W) or an array (H, W, 3), and the same every
                time.
            labels: (N,) class indices or names of classes, or (N, classes) 0 and 1 for several labels a picture; those
                of the data set by default; "none" to do without.
            class_names: By index; those of the data set, or the indices in words by default.
            hierarchy: Superclass to class indices.
            name: Used in tables.
            domain: The kind of pictures.
            splits: As in `splits_of`.
            segmentation: What each pixel shows, by the same rows.
            as_pictures: Hand uint8 tensors out as PIL pictures, for transforms that take no batches.
            upright: Turns PIL pictures as their EXIF orientation says; False leaves them as they are.
            batch_size: Of the loader.
            num_workers: Processes that load.

        Raises:
            UserError: If there are no pictures, or labels do not fit.
        """
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        _check_arguments(name, class_names, hierarchy, batch_size)
        self.name, self.pictures, self.as_pictures, self.upright = name, pictures, as_pictures, upright
        n = len(pictures)  # type: ignore[arg-type]
        if n == 0:
            raise UserError(f"`{name}` holds no pictures.")
        first = pictures[0] if isinstance(pictures, Tensor) else item(pictures, 0, name)[0]
        self.ready = isinstance(first, Tensor) and first.is_floating_point()
        self.domain = "tensors" if self.ready else domain
        self._digest, targets, self._scale = _content(pictures, name, upright)
        if labels is None or not isinstance(labels, str):
            names = tuple(class_names) or classes_of(pictures, name)
            said = targets_of(targets, name, names) if labels is None else _given(labels, name, names)
            self.labels, self.label_sets = said.labels, said.label_sets
            if said.labels is not None or said.label_sets is not None:
                self.class_names = said.names or names or _numbered(said)
                self._check_labels(n)
        self.hierarchy = dict(hierarchy or {})
        self.segmentation = segmentation
        self.splits = splits_of(splits, n, name)

    def _check_labels(self, n: int) -> None:
        labels, sets, count = self.labels, self.label_sets, len(self.class_names)
        if twice := [one for one, times in Counter(self.class_names).items() if times > 1]:
            raise UserError(f"`{self.name}` has two classes called `{twice[0]}`: give each a name of its own.")
        if labels is not None and labels.shape != (n,):
            raise UserError(f"`{self.name}` has {n} pictures but labels of shape {tuple(labels.shape)}.")
        if labels is not None and not 0 <= int(labels.min()) <= int(labels.max()) < count:
            raise UserError(
                f"`{self.name}` has labels {int(labels.min())} to {int(labels.max())}, but {count} class names."
            )
        if sets is not None and sets.shape != (n, count):
            raise UserError(
                f"`{self.name}` has {n} pictures and {count} class names but labels of shape {tuple(sets.shape)}."
            )

    def __len__(self) -> int:
        return len(self.pictures)  # type: ignore[arg-type]

    def load(self, rows: Sequence[int]) -> Tensor | list[Image.Image]:
        """The pictures: a batch (B, 3, H, W) where they are tensors of one size, else PIL pictures in RGB."""
        if isinstance(self.pictures, Tensor):
            batch = self.pictures[list(rows)]
            return [_pil(one) for one in batch] if self.as_pictures else batch
        found = [item(self.pictures, row, self.name)[0] for row in rows]
        if self.ready:
            return torch.stack(found)
        return [_pil(one) if isinstance(one, Tensor) else rgb(one, self._scale, self.upright) for one in found]

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
    if isinstance(images, Tensor) and images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        raise UserError(
            f"Pictures must be a tensor (N, 3, H, W), not {tuple(images.shape)}, which looks like (N, H, W, 3): give "
            "images.permute(0, 3, 1, 2)."
        )
    if isinstance(images, Tensor | np.ndarray):
        return InMemoryProbe(tensor_of(images, "Pictures", 4), **options)
    check_readable(images)
    return InMemoryProbe(images, **options)


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


def _given(labels: Any, name: str, names: Sequence[str]) -> Targets:
    """Labels of the caller: class indices, names of classes, or several labels a picture."""
    listed = list(labels) if isinstance(labels, Sequence | np.ndarray) and not isinstance(labels, str) else None
    if listed and (isinstance(listed[0], str | list | tuple) or np.ndim(listed[0])):
        return targets_of(listed, name, names)
    if isinstance(labels, Tensor) and labels.ndim == 2:
        return targets_of(list(labels), name, names)
    try:
        found = torch.as_tensor(labels)
        exact = found.to(torch.int64)
        fine = not found.is_complex() and bool((found == exact).all())
    except (TypeError, ValueError, RuntimeError):
        fine = False
    if not fine:
        raise UserError(f"labels of `{name}` must be class indices, one whole number a picture, not {brief(labels)}.")
    return Targets(labels=exact)


def _numbered(said: Targets) -> tuple[str, ...]:
    """Names of classes of which only the numbers are known."""
    count = 0 if said.labels is None else int(said.labels.max()) + 1
    return tuple(f"class {i}" for i in range(count if said.label_sets is None else said.label_sets.shape[1]))


def _content(pictures: Any, name: str, upright: bool) -> tuple[str, list[Any], Scale]:
    """The digest of all pixels; the targets of the items, None for each that has none; the scale of deep grey values.

    Raises:
        UserError: For what is no picture, and for pictures that are others when they are asked for again.
    """
    content = hashlib.sha256()
    if isinstance(pictures, Tensor):
        content.update(f"{pictures.dtype} {tuple(pictures.shape)}".encode())
        for part in pictures.split(256):
            content.update(part.contiguous().numpy().tobytes())
        return content.hexdigest(), [None] * len(pictures), Scale()
    extents: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    targets: list[Any] = []
    first: Any = None
    again = {index: b"" for index in torch.linspace(0, len(pictures) - 1, AGAIN).long().tolist()}
    for index in progress(range(len(pictures)), f"reading {name}"):
        picture, target = item(pictures, index, name)
        first = picture if first is None else first
        floats = [isinstance(one, Tensor) and one.is_floating_point() for one in (first, picture)]
        if floats[0] != floats[1]:
            raise UserError(f"Pictures 0 and {index} of `{name}` differ in kind: one is floats, the other is not.")
        if floats[0] and first.shape != picture.shape:
            raise UserError(f"Pictures 0 and {index} of `{name}` differ in size; floats are fed as they are.")
        data = _bytes(picture, upright, f"Picture {index} of `{name}`")
        content.update(data)
        if isinstance(picture, Image.Image) and is_deep(picture) and (found := extent(picture)):
            extents[picture.mode == "F"].append(found)
        targets.append(target)
        if index in again:
            again[index] = data
    if random := [index for index, data in again.items() if _bytes(item(pictures, index, name)[0], upright) != data]:
        raise UserError(
            f"Picture {random[0]} of `{name}` is another each time that it is asked for, as with random crops: "
            "give the data set without them, since what is recorded must be what is shown."
        )
    return content.hexdigest(), targets, scale_of(extents[False], extents[True])


AGAIN = 8
"""Pictures that are asked for twice, to see whether they stay the same."""


def _bytes(picture: Any, upright: bool, where: str = "") -> bytes:
    """Kind, shape and pixels of a picture; those in RGB for one of PIL, unless it is deep.

    Raises:
        UserError: For a picture of PIL that does not decode.
    """
    if isinstance(picture, Tensor):
        array = picture.numpy()
    else:
        try:
            array = np.asarray(turned(picture, upright) if is_deep(picture) else rgb(picture, upright=upright))
        except Exception as error:  # what PIL raises on damaged files is of a dozen kinds
            raise UserError(f"{where} does not decode: {first_line(error)}.") from None
    return f"{array.dtype} {array.shape}".encode() + array.tobytes()


def _pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
