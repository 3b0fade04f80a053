"""What the items of other people's data sets are: a picture, and what is said of it."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from neuronx.data.files import opened, why_no_picture
from neuronx.data.pixels import size_read
from neuronx.errors import UserError, brief, first_line

PICTURES = ("image", "img", "pixel_values", "picture", "images", "jpg", "jpeg", "png", "webp", "input", "x")
LABELS = ("label", "labels", "fine_label", "target", "targets", "cls", "class", "y")
"""What an item that is a mapping calls its picture and its label, the likeliest first."""


@dataclass(frozen=True)
class Targets:
    """What is said of N pictures.

    Attributes:
        labels: (N,) int64 class indices; None where pictures have several labels, or none.
        label_sets: (N, classes) bool, where pictures have several labels each.
        names: Of the classes, where the targets are names.
    """

    labels: Tensor | None = None
    label_sets: Tensor | None = None
    names: tuple[str, ...] = ()


def check_readable(images: Any) -> None:
    """Refuses what cannot be asked for its pictures by number, and says what could."""
    what = brief(images)
    if isinstance(images, Mapping):
        raise UserError(f"images={what} holds several things ({_some(images)}): give one of them.")
    if isinstance(images, DataLoader):
        raise UserError(f"images={what} gives batches: give the data set that it reads, loader.dataset.")
    counted = "__getitem__" in dir(images) and not isinstance(images, IterableDataset)
    if counted:
        try:
            counted = len(images) >= 0
        except (TypeError, NotImplementedError):
            counted = False
    if not counted and "__iter__" in dir(images):
        raise UserError(
            f"images={what} has no length, or gives its pictures in its own order only: take as many as are to be "
            "looked at, as in list(itertools.islice(images, 5000))."
        )
    if not counted or isinstance(images, str | bytes):
        raise UserError(
            f"images={what} is none of these: a folder, a tensor (N, 3, H, W), an array (N, H, W, 3), a list of "
            "pictures, a data set that has a length, a Probe."
        )


def item(images: Any, index: int, name: str) -> tuple[Any, Any]:
    """The picture and the target of an item, the latter None where there is none.

    Raises:
        UserError: What the data set raises, with the item's number; an item that is no picture.
    """
    where = f"Picture {index} of `{name}`"
    try:
        given = images[index]
    except UserError:
        raise
    except Exception as error:  # whatever someone else's data set raises
        raise UserError(f"{where} cannot be read: {first_line(error)}.") from error
    if isinstance(given, Mapping):
        key = picture_key(given, where)
        label = next((key for key in LABELS if key in given), None)
        return picture(given[key], where), None if label is None else given[label]
    if isinstance(given, tuple | list):
        if not given:
            raise UserError(f"{where} is an empty {type(given).__name__}; expected a picture and its class.")
        return picture(given[0], where), given[1] if len(given) > 1 else None
    return picture(given, where), None


def picture_key(given: Mapping[Any, Any], where: str) -> Any:
    """What an item that is a mapping calls its picture."""
    for key in PICTURES:
        if key in given:
            return key
    kinds = [key for key, value in given.items() if isinstance(value, Image.Image)]
    if len(kinds) != 1:
        raise UserError(f"{where} has {_some(given)}; call the picture among them `image`, its class `label`.")
    return kinds[0]


def picture(given: Any, where: str) -> Image.Image | Tensor:
    """A picture as PIL has it, or a tensor (3, H, W) uint8, or floats (C, H, W) as a network takes them.

    Arrays and tensors may have their channels last, and one channel or none of their own where they are grey.

    Raises:
        UserError: For anything else.
    """
    if isinstance(given, Image.Image):
        return given
    if isinstance(given, Mapping) and given.get("bytes"):
        return picture(given["bytes"], where)
    if isinstance(given, bytes):
        try:
            with opened(io.BytesIO(given)) as found:
                found.draft("RGB", size_read(*found.size))
                found.load()
                return found
        except Exception as error:  # what PIL raises on damaged files is of a dozen kinds
            why = why_no_picture(given, error)
            raise UserError(f"{where} is no picture, but {len(given)} bytes ({why}).") from None
    if not isinstance(given, np.ndarray | Tensor):
        raise UserError(f"{where} is {brief(given)}; expected a PIL picture, or a tensor (3, H, W) or array (H, W, 3).")
    return tensor_of(given, where, 3)


def tensor_of(given: Any, where: str, axes: int) -> Tensor:
    """An array or tensor with channels in front of height and width: (C, H, W), or (N, C, H, W) with four axes.

    Raises:
        UserError: For other shapes, and for values that are neither uint8 nor finite floats.
    """
    kind = "an array" if isinstance(given, np.ndarray) else "a tensor"
    if isinstance(given, np.ndarray):
        if not (given.dtype == np.uint8 or given.dtype.kind == "f"):
            raise UserError(
                f"{where} is an array of {given.dtype}; expected uint8, or floats that are fed as they are: bring its "
                "values to 0 to 255."
            )
        given = torch.from_numpy(np.ascontiguousarray(given.astype(given.dtype.newbyteorder("="))))
    if given.dtype != torch.uint8 and not given.is_floating_point():
        raise UserError(f"{where} must be uint8, or floats that are fed as they are, not {given.dtype}.")
    shape, wanted = tuple(given.shape), "(H, W, 3)" if axes == 3 else "(N, H, W, 3)"
    if given.ndim == axes - 1 and (axes == 3 or len(given) > 4):  # 3 of them are one picture in colour
        given = given.unsqueeze(-3)
    elif given.ndim == axes and given.shape[-3] not in (1, 3) and given.shape[-1] in (1, 3):
        given = given.movedim(-1, -3)
    if given.ndim != axes or not all(shape) or (given.dtype == torch.uint8 and given.shape[-3] not in (1, 3)):
        raise UserError(
            f"{where} must be {kind} {wanted}, or with the channels first, not {shape}; floats, which are fed as they "
            "are, may have any number of channels."
        )
    if given.is_floating_point():
        if not bool(given.isfinite().all()):
            raise UserError(f"{where}: it holds values that are NaN or infinite.")
        return given.float()
    return given.expand(*given.shape[:-3], 3, *given.shape[-2:])  # grey pictures count as pictures in RGB


def classes_of(images: Any, name: str) -> tuple[str, ...]:
    """Names of the classes of a data set: its own, or those of the data sets that it takes its pictures from."""
    own = getattr(images, "classes", None)
    if own is None or isinstance(own, str) or not isinstance(own, Sequence):
        own = None
        features = getattr(images, "features", None)
        if isinstance(features, Mapping):  # Hugging Face
            feature = next((features[key] for key in LABELS if key in features), None)
            own = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
    if own is not None:
        # ImageNet of torchvision has a tuple of synonyms for each class.
        return tuple(", ".join(one) if isinstance(one, tuple) else str(one) for one in own)
    if isinstance(parts := getattr(images, "datasets", None), Sequence):
        names = {classes_of(part, name) for part in parts}
        if len(names) > 1:
            raise UserError(
                f"The data sets that `{name}` joins have different classes, so one number means several: give them one "
                "numbering with labels= and class_names=."
            )
        return names.pop() if names else ()
    inner = getattr(images, "dataset", None)
    return () if inner is None or inner is images else classes_of(inner, name)


def targets_of(given: Sequence[Any], name: str, classes: Sequence[str] = ()) -> Targets:
    """What the targets of the items are: class indices, names of classes, or several labels each.

    Args:
        given: One a picture.
        name: Of the data, for messages.
        classes: Names of the classes, where they are known.

    Raises:
        UserError: For anything else, such as numbers to regress, boxes, masks and captions.
    """
    if _are_lists_of_classes(given):
        count = max(len(classes), 1 + max(number for target in given for number in target))
        return Targets(label_sets=torch.tensor([[one in target for one in range(count)] for target in map(set, given)]))
    kinds = Counter(_kind(target) for target in given)
    if len(kinds) > 1:
        usual = next(target for target in given if _kind(target) == kinds.most_common(1)[0][0])
        odd = next(place for place, target in enumerate(given) if _kind(target) != _kind(usual))
        raise UserError(
            f"Picture {odd} of `{name}` has the target {brief(given[odd])}, others have targets like {brief(usual)}: "
            f"every picture needs one of the same kind. {OTHERWISE}"
        )
    (kind,) = kinds
    if kind == "none":
        return Targets()
    if kind == "index":
        return Targets(labels=torch.tensor([int(torch.as_tensor(target).item()) for target in given]))
    if kind == "text":
        names = _names(set(given), name, classes)
        if not classes and len(names) > max(2, len(given) // 2):
            raise UserError(
                f"Targets of `{name}` are texts such as {brief(given[0])}, captions rather than names. {OTHERWISE}"
            )
        index = {one: place for place, one in enumerate(names)}
        return Targets(labels=torch.tensor([index[target] for target in given]), names=names)
    if kind == "texts":
        names = _names({one for target in given for one in target}, name, classes)
        sets = torch.tensor([[one in target for one in names] for target in map(set, given)])
        return Targets(label_sets=sets, names=names)
    if kind.startswith("hot"):
        sets = torch.stack([torch.as_tensor(np.asarray(target)) for target in given]).bool()
        if not bool(sets.any()):
            raise UserError(f"No picture of `{name}` has a label: all targets are 0 everywhere.")
        if bool((sets.sum(1) == 1).all()):
            return Targets(labels=sets.int().argmax(1))
        return Targets(label_sets=sets)
    raise UserError(f"Targets of `{name}` are {kind} such as {brief(given[0])}, no class indices. {OTHERWISE}")


def _are_lists_of_classes(given: Sequence[Any]) -> bool:
    """Whether targets are lists of class indices: whole numbers, none twice in a list, as many as a picture has."""
    if len({len(target) if isinstance(target, list) else -1 for target in given} - {-1}) < 2:
        return False
    return all(isinstance(target, list) and len(set(map(str, target))) == len(target) for target in given) and all(
        isinstance(one, int) and not isinstance(one, bool) and one >= 0 for target in given for one in target
    )


def _names(found: set[str], name: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes: those known, or all found, sorted."""
    if classes and (missing := sorted(found - set(classes))):
        raise UserError(f"`{name}` has pictures of class `{missing[0]}`, which is none of its {len(classes)} classes.")
    return tuple(classes) or tuple(sorted(found))


OTHERWISE = "Give labels=[...], one whole number a picture, or labels='none' to leave targets out."


def _kind(target: Any) -> str:
    """What a target is: none, index, text, texts, hot (and how long), or something else in words."""
    if target is None:
        return "none"
    if isinstance(target, str):
        return "text"
    if isinstance(target, Mapping):
        return "mappings"
    if isinstance(target, list | tuple | set | frozenset) and all(isinstance(one, str) for one in target):
        return "texts"
    if isinstance(target, tuple):
        return "tuples"
    if isinstance(target, Image.Image):
        return "pictures"
    try:
        values = target.detach().cpu().numpy() if isinstance(target, Tensor) else np.asarray(target)
    except ValueError:
        return "lists"
    if values.dtype.kind not in "biuf":
        return "lists" if values.ndim else f"{type(target).__name__} objects"
    if values.size == 1 and values.ndim < 2:  # some data sets give an array of one class index
        return "index" if values.dtype.kind in "biu" else "numbers"
    if values.ndim == 1 and bool(np.isin(values, (0, 1)).all()):
        return f"hot{len(values)}"
    return "lists of numbers" if values.ndim == 1 else "pictures"


def _some(given: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, list(given)[:6]))
