"""Maps: laid out on their grid, upsampled as Pillow does, cut strictly above the threshold."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from neuronx.errors import UserError
from neuronx.recording.maps import FieldCentres, active, masks, on_grid, upsampled

sides = st.integers(1, 17)
sizes = st.integers(2, 70)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(h=sides, w=sides, height=sizes, width=sizes, seed=st.integers(0, 99))
def test_upsampling_is_pillows_bilinear_and_stays_within_the_range(h, w, height, width, seed):
    maps = noise(seed, 2, 3, h, w)
    ours = upsampled(maps, (height, width))
    assert ours.shape == (2, 3, height, width)
    pillow = np.asarray(Image.fromarray(maps[1, 2].numpy()).resize((width, height), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(ours[1, 2], pillow, atol=2e-5)
    assert bool((ours <= maps.amax((2, 3), keepdim=True)).all() and (ours >= maps.amin((2, 3), keepdim=True)).all())


@settings(deadline=None)
@given(h=sides, w=sides, height=sizes, width=sizes, seed=st.integers(0, 99))
def test_equal_cells_are_centres_like_others(h, w, height, width, seed):
    maps, centres = noise(seed, 2, 3, h, w), FieldCentres((0.5 / h, 0.5 / w), (1 / h, 1 / w))
    assert torch.equal(upsampled(maps, (h, w)), maps)
    if height >= h and width >= w:
        np.testing.assert_allclose(
            upsampled(maps, (height, width), centres), upsampled(maps, (height, width)), atol=1e-4
        )


@settings(deadline=None)
@given(side=st.integers(2, 17), start=st.floats(-0.2, 0.6), share=st.floats(0.3, 1.5), seed=st.integers(0, 99))
def test_maps_lie_at_their_centres_and_go_on_beyond_them(side, start, share, seed):
    maps, centres = noise(seed, 1, 1, side, side), FieldCentres((start, 0.1), (share / side, 1 / side))
    for size in (40, 9):
        ours = upsampled(maps, (size, size), centres)
        assert bool((ours <= maps.max()).all() and (ours >= maps.min()).all())
        if size < side:
            continue
        at = [
            np.interp((np.arange(size) + 0.5) / size, s + d * np.arange(side), np.arange(side))
            for s, d in zip(centres.start, centres.step, strict=True)
        ]
        rows = np.stack([np.interp(at[1], np.arange(side), row) for row in maps[0, 0].numpy()])
        expected = np.stack([np.interp(at[0], np.arange(side), column) for column in rows.T], 1)
        np.testing.assert_allclose(ours[0, 0], expected, atol=1e-4)


def test_what_shrinks_keeps_its_place():
    maps = torch.zeros(1, 1, 40, 40)
    maps[0, 0, 20, 30] = 1
    pixels, centres = torch.arange(10) + 0.5, FieldCentres((0.0, 0.0), (1 / 40, 1 / 40))
    small = upsampled(maps, (10, 10), centres)[0, 0]
    middle = torch.stack([small.sum(1) @ pixels, small.sum(0) @ pixels]) / small.sum() / 10
    torch.testing.assert_close(middle, torch.tensor([20 / 40, 30 / 40]), atol=0.01, rtol=0)


@pytest.mark.parametrize(("side", "size"), [(13, 56), (4, 64), (7, 224)])
def test_constant_maps_stay_constant_to_the_last_bit(side, size):
    maps = noise(0, 50, 1, 1, 1).expand(50, 1, side, side)
    assert torch.equal(upsampled(maps, (size, size)), maps[..., :1, :1].expand(50, 1, size, size))
    assert not masks(maps, maps[:1, :, 0, 0].squeeze(0), (size, size))[0].any(), "strictly greater"


@settings(deadline=None)
@given(side=st.integers(2, 9), size=sizes, seed=st.integers(0, 99), cut=st.floats(-1, 3))
def test_pairs_that_are_not_active_have_empty_masks(side, size, seed, cut):
    maps = noise(seed, 4, 5, side, side)
    thresholds = maps.amax((0, 2, 3)) - cut
    pairs = active(maps, thresholds)
    everything = masks(maps, thresholds, (size, size))
    listed = torch.zeros(4, 5, dtype=torch.bool)
    listed[pairs[:, 0], pairs[:, 1]] = True
    assert not everything[~listed].any() and bool((maps.amax((2, 3)) > thresholds)[listed].all())
    some = upsampled(maps[pairs[:, 0], pairs[:, 1]], (size, size)) > thresholds[pairs[:, 1], None, None]
    assert torch.equal(some, everything[listed])


def test_half_pixel_geometry_on_a_known_map():
    maps = torch.tensor([[0.0, 1.0]])[None, None]
    assert upsampled(maps, (1, 4)).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]
    assert masks(maps, torch.tensor([0.75]), (1, 4)).flatten().tolist() == [False, False, False, True]


def test_patch_tokens_are_a_grid_row_by_row():
    patches = torch.arange(12.0).view(1, 4, 3)
    tokens = torch.cat([torch.full((1, 2, 3), 99.0), patches], 1)
    maps = on_grid(tokens, prefix=2)
    assert maps.shape == (1, 3, 2, 2) and maps[0, 1].tolist() == [[1, 4], [7, 10]]
    mask = masks(maps, torch.tensor([0.0, 4.0, 99.0]), (2, 2))
    assert mask[0].tolist() == [[[False, True], [True, True]], [[False, False], [True, True]], [[False] * 2] * 2]
    assert on_grid(maps) is maps


@pytest.mark.parametrize(
    ("output", "prefix", "message"),
    [
        (torch.zeros(2, 5), 0, "no positions"),
        (torch.zeros(2, 6, 3), 1, "5 tokens after the first 1 fill no square"),
        (torch.zeros(2, 1, 3), 1, "0 tokens"),
    ],
)
def test_what_has_no_grid_says_so(output, prefix, message):
    with pytest.raises(UserError, match=message):
        on_grid(output, prefix)
