import pytest
import torch

from neuronx.errors import UserError
from neuronx.targets.preprocess import Preprocess
from neuronx.world.pictures.probe import ShapesProbe, contact_sheet
from neuronx.world.pictures.render import render_masks
from neuronx.world.pictures.scene import PROBE
from neuronx.world.pictures.words import CLASS_NAMES, TRUTH, labels


@pytest.fixture(scope="module")
def probe():
    return ShapesProbe(size=400)


def test_splits_are_disjoint_exhaustive_and_seeded(probe):
    parts = [probe.splits[name] for name in ("train", "val", "test")]
    assert [len(part) for part in parts] == [280, 40, 80]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(400))
    assert torch.equal(ShapesProbe(size=400).split("test"), probe.split("test"))
    probe.check()


def test_the_default_is_the_registered_probe():
    assert ShapesProbe(size=10).seed == PROBE and len(ShapesProbe()) == 5000


def test_load_is_the_same_in_any_company(probe):
    alone = torch.cat([probe.load([row]) for row in (3, 200, 17)])
    assert alone.dtype == torch.uint8 and alone.shape == (3, 3, 64, 64)
    assert torch.equal(alone, probe.load([3, 200, 17]))


def test_a_larger_probe_begins_with_the_same_pictures(probe):
    assert torch.equal(ShapesProbe(size=800).load(range(20)), probe.load(range(20)))


@pytest.mark.parametrize("rank, world", [(0, 1), (1, 3)])
def test_workers_and_ranks_change_nothing(probe, rank, world):
    with_workers = ShapesProbe(size=400, num_workers=2)
    transform = Preprocess()
    here = list(probe.loader(transform, batch_size=64, rank=rank, world=world))
    there = list(with_workers.loader(transform, batch_size=64, rank=rank, world=world))
    assert len(here) == len(there) > 0
    for (images, rows), (others, same) in zip(here, there, strict=True):
        assert torch.equal(images, others) and torch.equal(rows, same)
        assert torch.equal(images, transform(probe.load(rows.tolist())))


def test_labels_and_truth(probe):
    assert probe.class_names == CLASS_NAMES and torch.equal(probe.labels, labels(probe.scenes))
    names, present = probe.truth
    assert names == TRUTH and present.shape == (400, len(TRUTH)) and present.dtype == torch.bool
    column = names.index(CLASS_NAMES[int(probe.labels[0])])
    assert present[0, column]


def test_masks_and_captions(probe):
    masks = probe.masks([5, 9], ["red", "sky", "violin"])
    assert masks.shape == (2, 3, 64, 64) and not masks[:, 2].any()
    assert torch.equal(
        probe.masks([9], list(TRUTH)).any(1)[0], torch.ones(64, 64, dtype=torch.bool)
    )  # every pixel is of an object or of the background
    assert render_masks(probe.scenes[[9]]).max() >= 1
    assert len(probe.captions([5, 9])) == 2


def test_the_fingerprint_tells_worlds_apart(probe):
    assert probe.fingerprint == ShapesProbe(size=400, batch_size=9).fingerprint
    assert len({probe.fingerprint, ShapesProbe(size=401).fingerprint, ShapesProbe(size=400, seed=8).fingerprint}) == 3


@pytest.mark.parametrize("options", [{"size": 0}, {"seed": -1}])
def test_impossible_worlds_are_refused(options):
    with pytest.raises(UserError, match="data=shapes"):
        ShapesProbe(**options)


def test_contact_sheet():
    assert contact_sheet(rows=2, columns=3, gap=4).size == (3 * 68 + 4, 2 * 68 + 4)
