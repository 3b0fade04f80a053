"""Units with their exemplars and what people said of them, of one model or of several."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.milannotations.layer import Layer
from neuronx.types import Unit


@dataclass(frozen=True, eq=False)
class Sample:
    """One unit. It holds copies, so that it outlives the files.

    Attributes:
        model: Such as `alexnet/imagenet`.
        layer: Name of the layer; text even where it is a number.
        unit: Its number in the layer.
        images: (k, 3, H, W) uint8, strongest first.
        masks: (k, 1, H, W) uint8, 1 where the unit is above its threshold, else 0.
        annotations: What people said; empty where nobody did.
    """

    model: str
    layer: str
    unit: int
    images: Tensor
    masks: Tensor
    annotations: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Milannotations:
    """A sequence of units; their pixels are read when a unit is asked for, everything else is in memory.

    Attributes:
        folders: The layers, those of a model together.
        places: (N, 2) int64, for each unit the position of its layer in `folders` and its row there.
        annotations: For each unit what people said of it.
    """

    folders: tuple[Layer, ...]
    places: np.ndarray
    annotations: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """The unit at a position; reads its images and masks.

        Raises:
            UserError: If a mask is neither 0 nor 1.
        """
        layer, row = self._at(index)
        masks = torch.from_numpy(np.array(layer.masks[row]))
        if int(masks.max()) > 1:
            raise UserError(f"{layer.folder / 'masks.npy'}, row {row}: masks are 0 or 1, found {int(masks.max())}.")
        images = torch.from_numpy(np.array(layer.images[row]))
        return Sample(layer.model, layer.name, int(layer.units[row]), images, masks, self.annotations[index])

    def lookup(self, layer: str | int, unit: int, model: str | None = None) -> Sample:
        """The unit of this number in a layer.

        Args:
            layer: Its name; a number stands for the layer called by it.
            unit: Its number in the layer, which is not its row where `units.npy` says otherwise.
            model: Whose layer; needed only where several models have such a unit.

        Raises:
            UserError: If there is no such unit, or more than one.
        """
        return self[self.index(layer, unit, model)]

    def index(self, layer: str | int, unit: int, model: str | None = None) -> int:
        """The position of a unit; see `lookup`."""
        if model is not None and model not in self.models:
            raise unknown("model", model, self.models)
        models = self.models if model is None else (model,)
        having = [folder for folder in self.folders if folder.model in models and folder.name == str(layer)]
        if not having:
            raise unknown("layer", str(layer), dict.fromkeys(one.name for one in self.folders if one.model in models))
        found = [key for one in having if (key := (one.model, one.name, unit)) in self._positions]
        if len(found) == 1:
            return self._positions[found[0]]
        where = ", ".join(folder.model for folder in having)
        if not found:
            known = sorted(key[2] for key in self._positions if key[0] == having[0].model and key[1] == str(layer))
            some = f" It has {len(known)} units, {known[0]} to {known[-1]}." if known else ""
            raise UserError(f"Layer `{layer}` of {where} has no unit {unit} here.{some if len(having) == 1 else ''}")
        where = ", ".join(key[0] for key in found)
        raise UserError(f"{len(found)} models have unit {unit} of layer `{layer}`; say which with model=: {where}.")

    def unit(self, index: int) -> Unit:
        """Which unit of its model is at a position; reads nothing."""
        layer, row = self._at(index)
        return Unit(layer.name, int(layer.units[row]))

    def model(self, index: int) -> str:
        """Whose unit is at a position; reads nothing."""
        return self._at(index)[0].model

    def subset(self, indices: Sequence[int]) -> "Milannotations":
        """The units at some positions, in that order; reads nothing."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(self, places=self.places[chosen], annotations=tuple(self.annotations[i] for i in chosen))

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Names of the models, in order."""
        return tuple(dict.fromkeys(layer.model for layer in self.folders))

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in order; each once, however many models have a layer of this name."""
        return tuple(dict.fromkeys(layer.name for layer in self.folders))

    @property
    def k(self) -> int:
        """Exemplars of each unit, the same for all."""
        return self.folders[0].k

    @cached_property
    def _positions(self) -> dict[tuple[str, str, int], int]:
        layers = [(layer.model, layer.name, layer.units.tolist()) for layer in self.folders]
        return {
            (layers[at][0], layers[at][1], layers[at][2][row]): index
            for index, (at, row) in enumerate(self.places.tolist())
        }

    def _at(self, index: int) -> tuple[Layer, int]:
        at, row = self.places[index].tolist()
        return self.folders[at], row

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def join(parts: Sequence[Milannotations]) -> Milannotations:
    """The units of several models, one model after another.

    Raises:
        UserError: If they differ in the number of exemplars, or a model is there twice.
    """
    models = [model for part in parts for model in part.models]
    if len(set(models)) < len(models):
        raise UserError(f"A model is there twice among {', '.join(models)}; its units could not be told apart.")
    folders = same_k([layer for part in parts for layer in part.folders], ", ".join(models))
    starts = np.cumsum([0, *(len(part.folders) for part in parts)])
    places = [part.places + np.array([start, 0]) for start, part in zip(starts, parts, strict=False)]
    return Milannotations(folders, np.concatenate(places), tuple(said for part in parts for said in part.annotations))


def same_k(layers: Sequence[Layer], where: str) -> tuple[Layer, ...]:
    """The layers; raises UserError unless there are some, and all have as many exemplars for each unit."""
    if not layers:
        raise UserError(f"No layers of {where} were asked for.")
    if len({layer.k for layer in layers}) > 1:
        ks = ", ".join(f"{layer.k} in {layer.model}/{layer.name}" for layer in layers)
        raise UserError(f"The units of {where} have different numbers of exemplars ({ks}).")
    return tuple(layers)
