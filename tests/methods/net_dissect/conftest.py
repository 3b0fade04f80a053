"""Pixel labels that are made up, for tests of what is counted on them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from neuronx.data.segmentation import Regions
from neuronx.methods.net_dissect.tally import Tally, tally


@dataclass(frozen=True)
class Painted:
    """The segmentation of pictures whose masks (N, C, H, W) bool are all in memory; any transform is ignored."""

    truth: Tensor
    names: tuple[str, ...]
    categories: tuple[str, ...]
    category: Tensor
    fingerprint: str = "painted"

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(name.replace(" ", "_") for name in self.names)

    @property
    def grid(self) -> tuple[int, int]:
        return tuple(self.truth.shape[-2:])

    def presence(self, rows: Sequence[int]) -> Tensor:
        return self.truth[rows].flatten(2).any(2)

    def regions(self, rows: Sequence[int], transform=None, grid=None) -> Regions:
        maps, picture, shows = [], [], []
        for b, masks in enumerate(self.truth[rows]):
            kinds, place = masks.flatten(1).T.unique(dim=0, return_inverse=True)
            maps.append(place.view(masks.shape[1:]) + len(picture))
            picture += [b] * len(kinds)
            shows.append(kinds)
        return Regions(torch.stack(maps), torch.tensor(picture), torch.cat(shows))


def painted(truth: Tensor, names: Sequence[str] | None = None, category: Sequence[int] | None = None) -> Painted:
    names = names or [f"concept {c}" for c in range(truth.shape[1])]
    category = torch.tensor(category if category is not None else [0] * len(names))
    kinds = ("object", "scene", "texture", "color")[: int(category.max()) + 1]
    return Painted(truth, tuple(names), kinds, category)


@pytest.fixture(scope="session", name="painted")
def _painted():
    """Makes a segmentation of masks (N, C, H, W) bool."""
    return painted


@pytest.fixture(scope="session")
def blobs():
    """Makes masks of pictures (N, C, H, W) and of units (N, K, H, W): rectangles, some units near a concept's."""
    return _blobs


def _blobs(images: int = 12, concepts: int = 6, units: int = 5, side: int = 14, seed: int = 0) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    lines = torch.arange(side)

    def rectangles(count: int, share: float) -> Tensor:
        low = torch.randint(0, side - 3, (2, images, count, 1), generator=chance)
        high = low + torch.randint(2, side // 2, (2, images, count, 1), generator=chance)
        rows, columns = (lines >= low) & (lines < high)
        there = torch.rand(images, count, 1, 1, generator=chance) < share
        return rows[..., None] & columns[..., None, :] & there

    truth = rectangles(concepts, 0.5)
    fires = rectangles(units, 0.6) | truth[:, torch.arange(units) % concepts].roll(1, -1)
    return truth, fires & (torch.rand(images, units, 1, 1, generator=chance) < 0.7)


GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "netdissect_tally.json").read_text())


def golden_truth() -> torch.Tensor:
    """Masks (N, C, 4, 4) of the fixture's labels 1 to 6; label 0 is no concept."""
    truth = torch.zeros(len(GOLDEN["images"]), len(GOLDEN["labels"]), 4, 4, dtype=torch.bool)
    for image, marks in zip(truth, GOLDEN["images"], strict=True):
        for marked in marks.values():
            for channel in marked["pixels"] if isinstance(marked, dict) else []:
                pixels = torch.tensor(channel)
                for label in pixels.unique():
                    image[label] |= pixels == label
            for label in marked if isinstance(marked, list) else []:
                image[label] = True
    return truth[:, 1:]


@pytest.fixture(scope="session")
def golden() -> Tally:
    """The tally of the golden features and labels."""
    labelled = painted(golden_truth(), GOLDEN["labels"][1:], GOLDEN["primary_category_of_label"][1:])
    maps = torch.tensor(GOLDEN["features_NxUx2x2"], dtype=torch.float64)
    thresholds = torch.tensor(GOLDEN["thresholds"], dtype=torch.float64)
    rows = torch.arange(len(maps)).split(4)
    return tally(((maps[some], labelled.regions(some)) for some in rows), thresholds, labelled)
