"""Pictures of a unit, dimmed outside its masks."""

import pytest
import torch

from neuronx.errors import UserError
from neuronx.milannotations.dataset import Sample
from neuronx.milannotations.show import grid, masked, pictures

IMAGES = torch.full((3, 3, 6, 8), 200, dtype=torch.uint8)
MASKS = torch.zeros(3, 1, 6, 8, dtype=torch.uint8)
MASKS[1, :, :3] = 1
SAMPLE = Sample("net/data", "a", 0, IMAGES, MASKS)


@pytest.mark.parametrize(("opacity", "outside"), [(0.75, 50), (0, 200), (1, 0)])
def test_what_is_outside_is_darker(opacity, outside):
    shown = masked(SAMPLE, opacity)
    assert shown.dtype == torch.uint8 and shown.shape == IMAGES.shape
    assert (shown[1, :, :3] == 200).all() and (shown[1, :, 3:] == outside).all() and (shown[0] == outside).all()


def test_pictures_one_by_one_and_together():
    assert [(one.size, one.mode) for one in pictures(SAMPLE)] == [((8, 6), "RGB")] * 3
    assert pictures(SAMPLE)[1].getpixel((0, 0)) == (200, 200, 200)
    assert grid(SAMPLE, columns=2).size == (2 * 10 + 2, 2 * 8 + 2)
    assert grid(SAMPLE, limit=2).size == (2 * 10 + 2, 8 + 2)


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"is in \[0, 1\], not 1.5"):
        pictures(SAMPLE, 1.5)
    for wrong in ({"limit": 0}, {"columns": 0}):
        with pytest.raises(UserError, match="at least 1 image and 1 column"):
            grid(SAMPLE, **wrong)
