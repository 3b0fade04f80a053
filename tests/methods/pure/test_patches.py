import pytest
import torch
from oracles_pure_splits import Meanings, network

from neuronx.data.in_memory import InMemoryProbe
from neuronx.errors import UserError
from neuronx.methods.pure.heat import heat_maps
from neuronx.methods.pure.patches import WINDOW, Patches, boxes, cropped, cut, find_masks
from neuronx.methods.pure.references import ReferenceOptions, find_references
from neuronx.methods.pure.samples import Samples, samples_of
from neuronx.recording.exemplars import find_exemplars
from neuronx.targets.preprocess import Preprocess


def mask(size, top, left, bottom, right):
    made = torch.zeros(1, size, size, dtype=torch.bool)
    made[0, top:bottom, left:right] = True
    return made


@pytest.mark.parametrize(
    ("where", "box"),
    [
        ((4, 4, 8, 8), (4, 4, 8, 8)),
        ((4, 4, 5, 5), (2, 2, 6, 6)),  # one pixel: a quarter of the picture around it
        ((12, 15, 16, 16), (12, 12, 16, 16)),  # at the right and lower border it moves inwards
        ((0, 0, 16, 3), (0, 0, 16, 16)),
        ((2, 0, 10, 2), (2, 0, 10, 8)),
        ((0, 0, 0, 0), (0, 0, 16, 16)),  # nothing: the whole picture
    ],
)
def test_boxes_are_squares_inside_the_picture(where, box):
    assert boxes(mask(16, *where)).tolist() == [list(box)]


def test_boxes_hold_their_masks():
    masks = torch.rand(50, 20, 20, generator=torch.Generator().manual_seed(0)) > 0.99
    for box, own in zip(boxes(masks).tolist(), masks, strict=True):
        top, left, bottom, right = box
        assert own[top:bottom, left:right].sum() == own.sum()
        assert bottom - top == right - left >= 5
        assert min(box) >= 0 and max(box) <= 20


def test_a_map_below_its_cut_is_cut_at_half_of_its_largest_value():
    maps = torch.tensor([[[0.0, 0.0], [0.0, 4.0]]]).repeat(2, 1, 1)
    above, below = cut(maps, torch.tensor([3.0, 9.0]), 8)
    assert 0 < above.sum() < below.sum() < 32
    assert below[-1, -1] and not below[:4, :4].any()


def test_crops_are_resized_and_a_whole_picture_stays():
    pictures = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    found = cropped(pictures, torch.tensor([[0, 0, 8, 8], [4, 2, 8, 6]]), 8)
    torch.testing.assert_close(found[0], pictures[0])
    twice = torch.nn.functional.interpolate(pictures[1:], (16, 16), mode="bilinear")[0]
    torch.testing.assert_close(found[1], twice[:, 8:, 4:12])  # at its border a crop blends with what is beyond


def test_patches_are_a_probe():
    pictures = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    probe = InMemoryProbe(pictures, domain="shapes")
    rows, where = torch.tensor([0, 3, 3]), torch.tensor([[0, 0, 8, 8], [0, 0, 4, 4], [4, 4, 8, 8]])
    made = Patches(probe, Preprocess(), rows, where, 8)
    assert (len(made), made.domain) == (3, "shapes")
    assert torch.equal(made.load([0])[0], pictures[0])
    batch, own = next(iter(made.loader(Preprocess(), torch.tensor([2, 1]))))
    assert own.tolist() == [2, 1]
    torch.testing.assert_close(batch[0, :, 7, 7], pictures[3, :, 7, 7] / 255.0)
    one = next(iter(made.loader(lambda picture: torch.tensor(picture.size).float(), torch.tensor([1]))))[0]
    assert one.tolist() == [[8, 8]]  # a PIL picture, for transforms that take no batches
    assert made.fingerprint != Patches(probe, Preprocess(), rows, where.flip(0), 8).fingerprint


@pytest.mark.parametrize("crop", ["mask", "peak", "heat", "none"])
def test_every_way_to_crop_gives_squares(crop, trainer):
    target, probe = network(), Meanings(60)
    found = find_exemplars(target, probe, trainer, k=4, rows=probe.splits["train"])["high"]
    masks = list(find_masks(found, torch.tensor([1, 0]), target, probe, trainer, 8, crop))
    assert [mask.shape for mask in masks] == [(4, 8, 8)] * 2
    made = torch.stack([boxes(mask, WINDOW if crop == "peak" else 0.25) for mask in masks])
    assert made.shape == (2, 4, 4)
    assert torch.equal(made[..., 2] - made[..., 0], made[..., 3] - made[..., 1])
    if crop == "peak":
        assert (made[..., 2] - made[..., 0] == 4).all()
        middle = made[..., :2].float() + 2
        expected = torch.stack([found.places[[1, 0]] // 2, found.places[[1, 0]] % 2], 2)
        grid = torch.tensor([8 / 3, 4.0])
        assert ((middle - (expected + 0.5) * grid).abs() <= 2).all()  # moved inwards at most by that
    if crop == "none":
        assert (made == torch.tensor([0, 0, 8, 8])).all()


def test_heat_is_where_the_peak_comes_from(trainer):
    target, probe = network(), Meanings(20)
    found = find_exemplars(target, probe, trainer, k=3, rows=probe.splits["train"])["high"]
    heat = heat_maps(target, probe, "high", found.rows[:2], torch.tensor([0, 1]), found.places[:2])
    assert heat.shape == (2, 3, 4, 4) and (heat >= 0).all() and (heat.amax((2, 3)) > 0).all()


def test_mistakes_are_told():
    with pytest.raises(UserError, match="mask"):
        Samples(crop="masks")
    with pytest.raises(UserError, match="at least 1"):
        Samples().cluster(torch.zeros(1, 3, 2), torch.ones(1, 3, dtype=torch.bool), 0)


def test_samples_have_crops_and_vectors_of_every_reference(trainer):
    target, probe = network(), Meanings(100)
    found = Samples(references=12, crop="none").sample(target, probe, trainer, "high")
    own = found.references.rows
    assert own.shape == found.at.shape == found.counted.shape == (3, 12)
    assert torch.equal(found.patches.rows[found.at], own)
    assert (found.patches.rows.diff() >= 0).all()
    assert found.counted[:2].all() and not found.counted[2].any()
    table, at = found.vectors["pure"]
    circuits = table[at]
    assert circuits.shape == (3, 12, 8)
    labels = Samples().cluster(circuits[:1], found.counted[:1], 2)
    of_class = probe.labels[own[0]]
    assert abs(float((labels[0] == of_class).float().mean()) - 0.5) == 0.5
    values, rows = found.vectors["activations"]
    assert values[rows].shape == (3, 12, 3)


def test_crops_around_peaks_are_half_of_the_picture(trainer):
    found = Samples(references=4, crop="peak").sample(network(), Meanings(60), trainer, "high")
    top, left, bottom, right = found.patches.boxes.T
    assert (bottom - top == 2).all() and (right - left == 2).all() and found.patches.side == 4


def test_references_that_do_not_count_are_not_shown(trainer):
    target, probe = network(), Meanings(60)
    options = ReferenceOptions(references=6)
    own = find_references(target, probe, trainer, "high", torch.tensor([1, 0]), options)
    labels = torch.tensor([[0, 1, -1, 1, 0, -1]])
    (shown,) = samples_of(target, probe, trainer, own, torch.tensor([1]), labels, [("a", "b")], options)
    assert (shown.unit.index, shown.names, shown.labels.tolist()) == (0, ("a", "b"), [0, 1, 1, 0])
    assert len(shown.crops) == len(shown.masks) == 4 and torch.equal(shown.vectors, own.vectors[1, [0, 1, 3, 4]])
