"""A made-up data set of pixel labels and the loops that the tally and the search are measured against."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from neuronx.data.segmentation import Regions

CONCEPTS, SIDE, MAP = 300, 112, 7
PER_IMAGE = 10
THRESHOLD = 1.0
_LINES = torch.arange(SIDE)


class Labelled:
    """What the counting asks of a segmentation: names and categories."""

    names = labels = tuple(f"concept {c}" for c in range(CONCEPTS))
    categories = ("object", "part", "scene")
    category = torch.arange(CONCEPTS) % 3
    grid = (SIDE, SIDE)


Masks = dict[int, np.ndarray]
"""Of one image: concept -> (112, 112) bool."""


def case(images: int, units: int, batch: int, seed: int = 0) -> list[tuple[Tensor, Regions, list[Masks]]]:
    """Batches of maps (B, K, 7, 7), regions, and of each image the masks (112, 112) of its about ten concepts.

    Concepts are discs of 5 to 25 cells radius, a tenth of them cover the image; a unit exceeds the threshold on about
    .5 % of the positions, by bumps in about a tenth of the images.
    """
    chance = torch.Generator().manual_seed(seed)
    batches = []
    for rows in torch.arange(images).split(batch):
        masks = [_concepts(chance) for _ in rows]
        batches.append((_maps(len(rows), units, chance), _regions(masks), masks))
    return batches


def tally(masks_of: Callable[[Tensor], list[np.ndarray]], maps: Tensor, truth: list[Masks]) -> np.ndarray:
    """The plain loop: for each image, unit and concept in the image, one `np.logical_and(...).sum()`.

    Args:
        masks_of: From the maps or masks of one image (K, ...) to the K masks.
        maps: (B, K, ...).
        truth: Of each image, concept -> mask.

    Returns:
        (K, C) cells of both.
    """
    both = np.zeros((maps.shape[1], CONCEPTS), np.int64)
    for image, concepts in zip(maps, truth, strict=True):
        for unit, mask in enumerate(masks_of(image)):
            for concept, where in concepts.items():
                both[unit, concept] += np.logical_and(mask, where).sum()
    return both


def upsampled(maps: Tensor) -> list[np.ndarray]:
    """Masks of one image's maps (K, 7, 7), one after the other, by Pillow as in the published code."""
    return [
        np.asarray(Image.fromarray(one, mode="F").resize((SIDE, SIDE), Image.Resampling.BILINEAR)) > THRESHOLD
        for one in maps.numpy()
    ]


def _concepts(chance: torch.Generator) -> Masks:
    found = {}
    for concept in torch.randperm(CONCEPTS, generator=chance)[:PER_IMAGE].tolist():
        y, x, size = torch.rand(3, generator=chance).tolist()
        disc = (_LINES[:, None] - y * SIDE) ** 2 + (_LINES - x * SIDE) ** 2 < (5 + 20 * size) ** 2
        found[concept] = (disc | (concept % 10 == 0)).numpy()
    return found


def _maps(images: int, units: int, chance: torch.Generator) -> Tensor:
    """Noise below the threshold, and bumps of 2 x 2 positions above it in some of the images."""
    maps = torch.rand(images, units, MAP, MAP, generator=chance) * 0.9
    strong = (torch.rand(images, units, generator=chance) < 0.1).nonzero(as_tuple=True)
    place = torch.randint(0, MAP - 1, (2, len(strong[0])), generator=chance)
    for dy in (0, 1):
        for dx in (0, 1):
            maps[(*strong, place[0] + dy, place[1] + dx)] += 0.95 - 0.2 * (dx + dy)
    return maps


def _regions(pictures: list[Masks]) -> Regions:
    maps, picture, shows = [], [], []
    for b, concepts in enumerate(pictures):
        stacked = torch.from_numpy(np.stack(list(concepts.values()))).flatten(1).T
        kinds, place = stacked.unique(dim=0, return_inverse=True)
        maps.append(place.view(SIDE, SIDE) + len(picture))
        picture += [b] * len(kinds)
        one = torch.zeros(len(kinds), CONCEPTS, dtype=torch.bool)
        one[:, list(concepts)] = kinds
        shows.append(one)
    return Regions(torch.stack(maps), torch.tensor(picture), torch.cat(shows))
