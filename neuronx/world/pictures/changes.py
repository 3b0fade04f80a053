"""Scenes made to test explanations: one attribute of the main object changes and nothing else, or a phrase is shown."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from neuronx.scoring.verification.pictures import Changes
from neuronx.targets.latents import pick, uniforms
from neuronx.world.pictures.probe import ScenesProbe, ShapesProbe, world_of
from neuronx.world.pictures.scene import (
    BACKGROUNDS,
    BANK,
    COLOUR_FAMILIES,
    COLOURS,
    NUMBERS,
    OBJECTS,
    PLACES,
    POOL,
    RADII,
    SHAPE_FAMILIES,
    SHAPES,
    SIDE,
    SIZES,
    TEXTURES,
    Scenes,
    reading,
    sample,
)

FACTORS = {
    "shape": len(SHAPES),
    "colour": len(COLOURS),
    "texture": len(TEXTURES),
    "size": len(SIZES),
    "place": 9,
    "background": len(BACKGROUNDS),
    "number": len(NUMBERS),
}
"""What can change, and how many values it has. Places are the cells of the grid; a number of objects is one more."""

_CELLS = {"left": (0, 3, 6), "right": (2, 5, 8), "top": (0, 1, 2), "bottom": (6, 7, 8), "centre": (4,)}
_VALUES: dict[str, tuple[str, frozenset[int]]] = {
    **{word: ("shape", frozenset({i})) for i, word in enumerate(SHAPES)},
    **{word: ("colour", frozenset({i})) for i, word in enumerate(COLOURS)},
    **{word: ("texture", frozenset({i})) for i, word in enumerate(TEXTURES)},
    **{word: ("size", frozenset({i})) for i, word in enumerate(SIZES)},
    **{word: ("place", frozenset(_CELLS[word])) for word in PLACES},
    **{word: ("background", frozenset({i})) for i, word in enumerate(BACKGROUNDS)},
    **{word: ("number", frozenset({i})) for i, word in enumerate(NUMBERS)},
    **{word: ("shape", frozenset(map(SHAPES.index, own))) for word, own in SHAPE_FAMILIES.items()},
    **{word: ("colour", frozenset(map(COLOURS.index, own))) for word, own in COLOUR_FAMILIES.items()},
}
"""Word -> the factor that it is about, and the values for which it is true."""

_APART = 18.0
"""From the middle of a picture to a small object in its corner, in pixels."""


def wanted(phrase: str) -> dict[str, tuple[int, ...]]:
    """The values of each factor that a phrase allows; {} for a phrase with no word that the world knows.

    Words of one factor that exclude each other, as in a sentence about two objects, allow the values of any of them.
    """
    found: dict[str, list[frozenset[int]]] = {}
    for word in phrase.lower().replace("_", " ").replace(",", " ").split():
        if (known := reading(word, _VALUES)) is not None:
            factor, values = _VALUES[known]
            found.setdefault(factor, []).append(values)
    return {
        factor: tuple(sorted(frozenset.intersection(*values) or frozenset.union(*values)))
        for factor, values in found.items()
    }


def changed(scenes: Scenes, factor: str, values: Tensor) -> Scenes:
    """The scenes with one attribute of the main object, or of the whole, set to values (B,) of one of `FACTORS`.

    For another number of objects all but the main one make room for small copies of it.
    """
    if factor == "background":
        return replace(scenes, background=values)
    if factor == "number":
        return _copies(scenes, values)
    if factor in ("shape", "colour", "texture"):
        return replace(scenes, **{factor: _main(getattr(scenes, factor), values)})
    radius, place = scenes.radius[:, 0], scenes.place[:, 0]
    x, y = scenes.x[:, 0] - SIDE / 2, scenes.y[:, 0] - SIDE / 2
    if factor == "size":
        radius = torch.tensor(RADII).mean(1)[values]
        scenes = replace(scenes, size=_main(scenes.size, values), radius=_main(scenes.radius, radius))
    else:
        place = values
        far = ((30.0 - radius).clamp(min=8.0) + 8.0) / 2
        x, y = (values % 3 - 1) * far, (values // 3 - 1) * far
        scenes = replace(scenes, place=_main(scenes.place, place))
    reach = (30.0 - radius).clamp(min=8.0)
    return replace(
        scenes,
        x=_main(scenes.x, SIDE / 2 + x.clamp(-reach, reach)),
        y=_main(scenes.y, SIDE / 2 + y.clamp(-reach, reach)),
    )


def _main(values: Tensor, of_main: Tensor) -> Tensor:
    """Values (B, 3) of the objects, those of the main one changed."""
    return torch.cat((of_main[:, None].to(values), values[:, 1:]), 1)


def _copies(scenes: Scenes, number: Tensor) -> Scenes:
    """The main object and `number` (B,) small copies of it, in the corners that are farthest from it."""
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]) * _APART + SIDE / 2
    main = torch.stack((scenes.x[:, 0], scenes.y[:, 0]), 1)
    order = (corners - main[:, None]).square().sum(2).argsort(dim=1, descending=True, stable=True)[:, : OBJECTS - 1]
    there = torch.arange(1, OBJECTS) <= number[:, None]

    def objects(values: Tensor, copies: Tensor) -> Tensor:
        return torch.cat((values[:, :1], copies.to(values)), 1)

    def alike(values: Tensor) -> Tensor:
        return objects(values, torch.where(there, values[:, :1], -1))

    at = corners[order]
    return replace(
        scenes,
        shape=alike(scenes.shape),
        colour=alike(scenes.colour),
        texture=alike(scenes.texture),
        size=objects(scenes.size, torch.where(there, 0, -1)),
        place=objects(scenes.place, torch.where(there, torch.tensor([0, 2, 6, 8])[order], -1)),
        radius=objects(scenes.radius, torch.full(there.shape, sum(RADII[0]) / 2)),
        x=objects(scenes.x, at[:, :, 0]),
        y=objects(scenes.y, at[:, :, 1]),
    )


def fitted(scenes: Scenes, wants: dict[str, tuple[int, ...]], draws: Tensor) -> Scenes:
    """The scenes with each factor that is wanted set to one of its values, by uniform draws (B, factors)."""
    # A number of objects comes last, so that copies are like what they are copied from.
    for column, factor in enumerate(sorted(wants, key=list(FACTORS).index)):
        values = torch.tensor(wants[factor])
        scenes = changed(scenes, factor, values[pick(draws[:, column], len(values))])
    return scenes


def joined(parts: Sequence[Scenes]) -> Scenes:
    """Scenes one after another."""
    return Scenes(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Scenes)))


@dataclass(frozen=True)
class Drawing:
    """Draws scenes of the embedded world to test explanations: a `Drawer`.

    Attributes:
        world: The version of the world, which decides how many objects scenes have and of which classes they are.
        seed: Of the scenes in which attributes change.
        pool_seed: Of the pool.
    """

    world: str = "shapes"
    seed: int = BANK
    pool_seed: int = POOL
    domain: str = "shapes"

    def bank(self, scenes: int) -> Changes:
        """Every value of every factor of some scenes: 51 pictures of a scene, in 7 groups."""
        base = self._scenes(0, scenes)
        parts = [
            changed(base, factor, torch.full((scenes,), value)) for factor, n in FACTORS.items() for value in range(n)
        ]
        which = torch.cat([torch.full((n,), place) for place, n in enumerate(FACTORS.values())])
        scene = torch.arange(scenes).repeat(len(which))
        group = which.repeat_interleave(scenes) * scenes + scene
        return Changes(self._probe(joined(parts)), torch.arange(len(scene)), group, scene, torch.full_like(scene, -1))

    def contrasts(self, concepts: Sequence[str], scenes: int) -> Changes:
        """Pairs: the main object fits the concept; then one of its factors is drawn among the other values."""
        parts, about = [], []
        for place, concept in enumerate(concepts):
            wants = {factor: own for factor, own in wanted(concept).items() if len(own) < FACTORS[factor]}
            if not wants:
                continue
            draws = uniforms(self.seed, torch.arange(scenes) + scenes * (place + 1), len(FACTORS) + 2)
            shown = fitted(self._scenes(scenes * (place + 1), scenes), wants, draws[:, 2:])
            hidden = shown
            which = pick(draws[:, 0], len(wants))
            for number, (factor, own) in enumerate(wants.items()):
                others = torch.tensor([value for value in range(FACTORS[factor]) if value not in own])
                other = changed(shown, factor, others[pick(draws[:, 1], len(others))])
                hidden = Scenes(
                    *(
                        torch.where((which == number).view(-1, *[1] * (a.ndim - 1)), a, b)
                        for a, b in zip(vars(other).values(), vars(hidden).values(), strict=True)
                    )
                )
            parts += [shown, hidden]
            about += [place] * scenes
        pairs = torch.arange(len(about))
        group = pairs.view(-1, scenes).repeat(1, 2).flatten()
        made = torch.tensor(about, dtype=torch.int64)[group] if about else pairs
        images = self._probe(joined(parts) if parts else self._scenes(0, 0))
        return Changes(images, torch.arange(len(group)), group, group, made)

    def shows(self, concepts: Sequence[str], number: int) -> tuple[ScenesProbe, Tensor]:
        """Scenes of the pool whose main object is made to fit each concept; concepts of no known word have none."""
        parts, about = [], []
        for place, concept in enumerate(concepts):
            if wants := wanted(concept):
                rows = torch.arange(number) + number * place
                parts.append(
                    fitted(self._scenes(number * place, number), wants, uniforms(self.seed, rows, len(FACTORS)))
                )
                about += [place] * number
        return self._probe(joined(parts) if parts else self._scenes(0, 0)), torch.tensor(about, dtype=torch.int64)

    def pool(self, size: int) -> ShapesProbe:
        """Fresh scenes."""
        return ShapesProbe(size, self.pool_seed, world=self.world)

    def _scenes(self, first: int, number: int) -> Scenes:
        return sample(self.seed, torch.arange(first, first + number), world_of(self.world).layouts)

    def _probe(self, scenes: Scenes) -> ScenesProbe:
        return ScenesProbe(scenes, world=self.world)
