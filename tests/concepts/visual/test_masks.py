"""Where features are: masks of pictures that nobody labelled."""

import pytest
import torch

from neuronx.concepts.visual.examples import RGB, SIDE, grating, plain
from neuronx.concepts.visual.masks import PLACED, VisualMasks
from neuronx.data.in_memory import probe_of
from neuronx.targets.preprocess import Preprocess

NAMES = [feature.name for feature in PLACED]


def blobs(n=30):
    """Grey pictures (n, 3, 224, 224) with a red square of 56 pixels, at one of 16 places in turn, and its mask."""
    pictures, masks = plain().repeat(n, 1, 1, 1), torch.zeros(n, SIDE, SIDE, dtype=torch.bool)
    for i in range(n):
        y, x = 56 * (i % 4), 56 * (i // 4 % 4)
        masks[i, y : y + 56, x : x + 56] = True
        pictures[i][:, masks[i]] = torch.tensor(RGB["red"])[:, None]
    return (pictures * 255).to(torch.uint8), masks


@pytest.fixture(scope="module")
def planted():
    pictures, masks = blobs()
    return probe_of(pictures), masks


def test_colours_lie_where_they_are(planted):
    probe, truth = planted
    found = VisualMasks(probe).masks(range(5), Preprocess())
    assert found.shape == (5, len(NAMES), 28, 28)
    assert torch.equal(found[:, NAMES.index("red")], truth[:5, 4::8, 4::8])
    assert torch.equal(found[:, NAMES.index("grey")], ~truth[:5, 4::8, 4::8])
    assert not found[:, NAMES.index("blue")].any()


def test_what_there_is_more_or_less_of_is_above_a_quantile_of_train():
    pictures = plain().repeat(20, 1, 1, 1)
    pictures[::2, :, :112] = grating("vertical", 4.5)[:, :112]
    probe = probe_of((pictures * 255).to(torch.uint8))
    masks = VisualMasks(probe, quantile=0.8, grid=(8, 8))
    vertical = masks.masks(range(20), Preprocess())[:, NAMES.index("fine vertical lines")]
    assert not vertical[1::2].any() and not vertical[:, 5:].any() and vertical[::2, :3].float().mean() > 0.7
    train = masks.masks(probe.split("train").tolist(), Preprocess())[:, NAMES.index("fine vertical lines")]
    assert train.float().mean() <= 0.2


def test_regions_hold_the_same_and_follow_the_crop(planted):
    probe, _ = planted
    masks, seen = VisualMasks(probe), Preprocess(crop=112, mean=(0.5,), std=(0.5,))
    regions = masks.regions([3, 8], seen, (14, 14))
    assert torch.equal(regions.masks(range(len(NAMES))), masks.masks([3, 8], seen, (14, 14)))
    assert int(regions.sizes.sum()) == 2 * 14 * 14 and len(regions.picture) < 100
    whole = masks.masks([5], Preprocess())[0, NAMES.index("red")]
    middle = masks.masks([5], seen)[0, NAMES.index("red")]
    assert whole[7:14, 7:14].all() and middle[:14, :14].all() and middle.sum() == 14 * 14


def test_masks_of_exemplars_are_compared_with_features(planted):
    probe, truth = planted
    ious = VisualMasks(probe).ious(truth[:4, 4::8, 4::8], range(4), Preprocess())
    assert ious.shape == (4, len(NAMES)) and ious[:, NAMES.index("red")].tolist() == [1.0] * 4
    assert not ious[:, NAMES.index("blue")].any() and ious[:, NAMES.index("grey")].max() == 0


def test_presence_and_names(planted):
    probe, _ = planted
    masks = VisualMasks(probe)
    shown = masks.presence([0, 1])
    assert shown[:, NAMES.index("red")].all() and not shown[:, NAMES.index("green")].any()
    assert len(masks.category) == len(masks.names) == len(set(masks.names))
    assert VisualMasks(probe, 0.9).fingerprint != masks.fingerprint == VisualMasks(probe).fingerprint


def test_plain_pictures_show_no_lines():
    probe = probe_of(torch.full((12, 3, 64, 64), 128, dtype=torch.uint8))
    found = VisualMasks(probe).masks(range(12), Preprocess())
    shown = {name for name, there in zip(NAMES, found.flatten(2).any(2).any(0).tolist(), strict=True) if there}
    assert shown == {"grey", "a smooth background"}
