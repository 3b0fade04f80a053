"""Where the pixels of a picture lie in a network's input, against torchvision on a picture of its own coordinates."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from neuronx.data.label_maps import NOTHING, OUTSIDE, cut, together
from neuronx.data.segmentation import cells, under
from neuronx.targets.preprocess import Preprocess


def seen(transform, height, width):
    """(2, H', W') float: which row and column of the picture, from 0, each pixel of the input shows; -1 for none."""
    rows = torch.arange(1, height + 1, dtype=torch.float32)[:, None].expand(height, width)
    columns = torch.arange(1, width + 1, dtype=torch.float32).expand(height, width)
    planes = []
    for plane in (rows, columns):
        picture = Image.fromarray(plane.contiguous().numpy())
        if transform.resize is not None:
            size = [transform.resize] if isinstance(transform.resize, int) else list(transform.resize)
            picture = F.resize(picture, size, InterpolationMode.BILINEAR, antialias=True)
        if transform.crop is not None:
            side = transform.crop
            picture = F.center_crop(picture, [side] * 2 if isinstance(side, int) else list(side))
        planes.append(torch.from_numpy(np.array(picture)) - 1)
    return torch.stack(planes)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(8, 90),
    st.integers(8, 90),
    st.none() | st.integers(8, 60) | st.tuples(st.integers(8, 60), st.integers(8, 60)),
    st.none() | st.integers(4, 70) | st.tuples(st.integers(4, 70), st.integers(4, 70)),
)
def test_cells_are_where_torchvision_puts_the_pixels(height, width, resize, crop):
    transform = Preprocess(resize=resize, crop=crop)
    shown = seen(transform, height, width)
    rows, columns = cells(transform, height, width, tuple(shown.shape[1:]))
    scaled, _ = transform.sizes(height, width)
    for mine, theirs, source, after in ((rows, shown[0], height, scaled[0]), (columns, shown[1].T, width, scaled[1])):
        # A line across the middle; the frame is black.
        line = theirs[:, theirs.shape[1] // 2]
        assert torch.equal(mine < 0, line < -0.5)
        # Bilinear weights blur coordinates within a pixel, more at the rim of a picture that is made smaller.
        inner = (mine >= 0) & (mine > source / after) & (mine < source - 1 - source / after)
        assert bool(((mine - line)[inner].abs() <= 0.51).all())


@pytest.mark.parametrize("transform", [Preprocess(resize=256, crop=224), Preprocess(resize=(256, 256), crop=227)])
def test_cells_of_a_photograph(transform):
    rows, columns = cells(transform, 360, 480, (112, 112))
    shown = seen(transform, 360, 480)[:, None]
    here = torch.nn.functional.interpolate(shown, (112, 112), mode="bilinear", align_corners=False)[:, 0]
    assert (rows - here[0][:, 56]).abs().max() < 0.6 and (columns - here[1][56]).abs().max() < 0.6


def test_a_picture_of_labels_at_half_the_size():
    transform = Preprocess(resize=224, crop=128)
    rows, columns = cells(transform, 224, 224, (64, 64), labels=(112, 112))
    assert rows.tolist() == columns.tolist() == list(range(24, 88))


def test_what_lies_under_cells():
    labels = torch.arange(6).view(1, 2, 3)
    found = under(labels, torch.tensor([-1, 1]), torch.tensor([2, 0, -1]), outside=9)
    assert found.tolist() == [[[9, 9, 9], [5, 3, 9]]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_regions_are_the_different_combinations_of_labels(seed, planes, concepts):
    random = np.random.default_rng(seed)
    stacks = [torch.from_numpy(random.integers(NOTHING, concepts, (planes, 6, 7))) for _ in range(3)]
    for stack in stacks:
        stack[:, :2] = OUTSIDE
    everywhere = [[0], [], [concepts - 1]]
    regions = together([cut(stack, whole, concepts) for stack, whole in zip(stacks, everywhere, strict=True)])
    masks = regions.masks(range(concepts))
    for image, (stack, whole) in enumerate(zip(stacks, everywhere, strict=True)):
        for concept in range(concepts):
            expected = (stack == concept).any(0)
            if concept in whole:
                expected |= stack[0] != OUTSIDE
            assert torch.equal(masks[image, concept], expected)
        combinations = np.unique(stack.reshape(planes, -1).numpy(), axis=1).shape[1]
        assert int((regions.picture == image).sum()) == combinations
    assert bool((regions.sizes > 0).all())
