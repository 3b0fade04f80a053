import hashlib

import numpy as np
import oracles_shapes as oracle
import pytest
import torch

from neuronx.world.pictures import render as renderer
from neuronx.world.pictures.render import BODY, EXTENT, OUTLINES, PATTERNS, render, render_all, render_masks, sheets
from neuronx.world.pictures.scene import COLOURS, PROBE, SHAPES, sample


@pytest.fixture(scope="module")
def scenes():
    return sample(11, torch.arange(250))


@pytest.fixture(scope="module")
def painted(scenes):
    return render_all(scenes)


def test_pictures_and_maps_have_their_types(painted):
    pictures, ids = painted
    assert pictures.shape == (250, 3, 64, 64) and pictures.dtype == torch.uint8
    assert ids.shape == (250, 64, 64) and ids.dtype == torch.uint8


@pytest.mark.parametrize("size", [1, 7, 64])
def test_pixels_do_not_depend_on_the_batch(painted, size):
    for start in (0, 100):
        pictures, ids = render_all(sample(11, torch.arange(start, start + size)))
        assert torch.equal(pictures, painted[0][start : start + size])
        assert torch.equal(ids, painted[1][start : start + size])


def test_pixels_do_not_depend_on_threads_or_order(scenes, painted):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        order = torch.randperm(250)
        assert torch.equal(render(scenes[order]), painted[0][order])
    finally:
        torch.set_num_threads(before)


def test_pictures_or_maps_alone_are_the_same(scenes, painted):
    assert torch.equal(render(scenes[:70]), painted[0][:70])
    assert torch.equal(render_masks(scenes[:70]), painted[1][:70])


def test_windows_leave_nothing_out(scenes, painted, monkeypatch):
    monkeypatch.setattr(renderer, "_REACH", (64, 64, 64))
    pictures, ids = render_all(scenes)
    assert torch.equal(pictures, painted[0]) and torch.equal(ids, painted[1])


def test_pixels_are_pinned():
    """Trained weights depend on these very pixels; a change here needs new weights and a new RENDERER."""
    pictures, ids = render_all(sample(PROBE, torch.arange(200)))
    assert (
        hashlib.sha256(pictures.numpy().tobytes()).hexdigest()
        == "9e35a750ca2394f0f9d01447b80af42961b57791e59d2a8cba50bd2e7adf8754"
    )
    assert (
        hashlib.sha256(ids.numpy().tobytes()).hexdigest()
        == "5bd4e59e96681e20297cae8bbac9a3a8b0cf7ef07a9825c5c54953221fd93101"
    )


def test_maps_agree_with_the_slow_outlines(scenes, painted):
    wrong = [(oracle.ids(scenes, row) != painted[1][row].numpy()).sum() for row in range(250)]
    # A pixel whose centre lies on an outline may fall on either side.
    assert sum(wrong) <= 5


def test_outlines_are_distances():
    """Near the outline the value grows by the distance walked, so that edges and rims are even."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 20000, generator=generator).mul(2.4).sub(1.2).double()
    angle = torch.rand(20000, generator=generator).double() * 6.3
    step = 1e-3
    for name, outline in OUTLINES.items():
        here = outline(x, y)
        walked = outline(x + step * angle.cos(), y + step * angle.sin()) - here
        assert walked.abs().max() < step * 1.001, name
        slope = torch.stack([outline(x + step, y) - here, outline(x, y + step) - here]).norm(dim=0) / step
        assert slope[here.abs() < 0.05].median() == pytest.approx(1, abs=0.01), name
        assert (here[torch.hypot(x, y) > EXTENT + 0.005] > 0).all(), name
        share = (here < 0).float().mean() * 2.4**2 / np.pi
        assert 0.3 < share < 0.85, name


def test_textures_cover_their_share_at_every_size():
    line = torch.arange(-40, 40) + 0.5
    for name, marks in PATTERNS.items():
        for period in (6.5, 7.3, 8.4):
            cover = marks(line[None, None], line[None, :, None], torch.full((1, 1, 1), period))
            assert cover.shape == (1, 80, 80) and cover.min() >= 0 and cover.max() <= 1
            assert 0.25 < cover.mean() < 0.55, name


def test_every_object_is_seen_in_its_colour():
    scenes = sample(12, torch.arange(1500))
    pictures, ids = render_all(scenes)
    palette = torch.tensor(BODY)
    seen, right = 0, 0
    for slot in range(3):
        rows = ((scenes.texture[:, slot] == 0) & (scenes.shape[:, slot] >= 0)).nonzero().squeeze(1).tolist()
        for row in rows:
            pixels = pictures[row][:, ids[row] == slot + 1].float() / 255
            assert pixels.shape[1] > 60
            nearest = (palette - pixels.median(dim=1).values).norm(dim=1).argmin()
            seen, right = seen + 1, right + int(nearest == scenes.colour[row, slot])
    assert seen > 300 and right / seen > 0.95


def test_nothing_hides_an_object():
    scenes = sample(13, torch.arange(2000))
    ids = render_masks(scenes).flatten(1)
    for slot in range(3):
        area = (ids == slot + 1).sum(1)
        there = scenes.shape[:, slot] >= 0
        assert area[there].min() > 60 and (area[~there] == 0).all()
        assert slot == 0 or (area < (ids == 1).sum(1))[there].float().mean() > 0.95


def test_sheets_are_pictures_and_differ():
    kinds = sheets(torch.device("cpu"))
    assert kinds.min() >= 0 and kinds.max() <= 1
    means = kinds.mean((2, 3))
    assert (torch.cdist(means, means) + torch.eye(len(means))).min() > 0.05


def test_colours_are_well_apart():
    palette = torch.tensor(BODY)
    assert (torch.cdist(palette, palette) + torch.eye(len(COLOURS))).min() > 0.25
    assert set(OUTLINES) == set(SHAPES)


def test_no_scenes_make_no_pictures():
    pictures, ids = render_all(sample(1, torch.arange(0)))
    assert pictures.shape == (0, 3, 64, 64) and ids.shape == (0, 64, 64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_paints_the_same_pixels(painted):
    pictures, ids = render_all(sample(11, torch.arange(250, device="cuda")))
    assert torch.equal(pictures.cpu(), painted[0]) and torch.equal(ids.cpu(), painted[1])
