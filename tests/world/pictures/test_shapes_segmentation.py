"""The embedded world's regions against its masks."""

import pytest
import torch

from neuronx.targets.preprocess import Preprocess
from neuronx.world.pictures.probe import ShapesProbe
from neuronx.world.pictures.words import BACKGROUNDS, CLASS_NAMES, SHAPES


@pytest.fixture(scope="module")
def probe():
    return ShapesProbe(150)


def test_regions_are_the_masks_of_every_concept(probe):
    rows = [0, 149, *range(3, 60)]
    segmentation = probe.segmentation
    regions = segmentation.regions(rows, Preprocess())
    assert segmentation.grid == (64, 64)
    assert torch.equal(regions.masks(range(len(segmentation.names))), probe.masks(rows, segmentation.names))
    assert torch.equal(regions.picture[regions.maps], torch.arange(len(rows))[:, None, None].expand(-1, 64, 64))


def test_there_is_a_region_for_the_ground_and_one_for_each_object(probe):
    regions = probe.segmentation.regions(range(150), Preprocess())
    assert torch.equal(regions.picture.bincount(), 1 + probe.scenes.count)
    assert int(regions.maps.max()) < len(regions.picture) == len(regions.shows)
    assert regions.maps.dtype == regions.picture.dtype == torch.int64 and regions.shows.dtype == torch.bool


def test_a_concept_has_a_kind(probe):
    segmentation = probe.segmentation
    kinds = dict(zip(segmentation.names, segmentation.category.tolist(), strict=True))
    for kind, words in {"shape": SHAPES, "background": BACKGROUNDS, "class": CLASS_NAMES}.items():
        assert {kinds[word] for word in words} == {segmentation.categories.index(kind)}
    assert segmentation.names == probe.truth[0] and len(set(segmentation.names)) == len(segmentation.names)
    assert torch.equal(segmentation.presence([5, 3]), probe.truth[1][[5, 3]])


def test_another_grid_and_a_crop_show_the_pixel_under_each_cell(probe):
    rows = list(range(20))
    whole = probe.segmentation.regions(rows, Preprocess())
    half = probe.segmentation.regions(rows, Preprocess(), (32, 32))
    concepts = list(range(len(probe.segmentation.names)))
    assert torch.equal(half.masks(concepts), whole.masks(concepts)[:, :, 1::2, 1::2])
    cropped = probe.segmentation.regions(rows, Preprocess(crop=32), (32, 32))
    assert torch.equal(cropped.masks(concepts), whole.masks(concepts)[:, :, 16:48, 16:48])


def test_a_crop_beyond_the_picture_shows_nothing_there(probe):
    rows = list(range(20))
    regions = probe.segmentation.regions(rows, Preprocess(crop=80), (80, 80))
    concepts = list(range(len(probe.segmentation.names)))
    masks = regions.masks(concepts)
    assert torch.equal(masks[:, :, 8:72, 8:72], probe.masks(rows, probe.segmentation.names))
    assert masks.sum() == masks[:, :, 8:72, 8:72].sum()


def test_the_fingerprint_knows_the_pictures(probe):
    assert probe.segmentation.fingerprint == ShapesProbe(150).segmentation.fingerprint
    assert probe.segmentation.fingerprint != ShapesProbe(150, 3).segmentation.fingerprint
