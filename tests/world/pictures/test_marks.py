import pytest
import torch

from neuronx.errors import UserError
from neuronx.world.pictures.marks import SIDE, MarkedProbe, Marks, stamp
from neuronx.world.pictures.probe import ShapesProbe
from neuronx.world.pictures.scene import SHAPES


def test_half_of_the_pictures_show_the_chip_of_their_shape():
    probe = MarkedProbe("half", size=400)
    marked = probe.chips >= 0
    assert 0.4 < marked.float().mean() < 0.6
    assert torch.equal(probe.chips[marked], probe.labels[marked])
    assert probe.class_names == SHAPES and torch.equal(probe.labels, probe.scenes.shape[:, 0])


def test_misleading_chips_are_those_of_every_other_shape():
    probe = MarkedProbe("misleading", size=600)
    assert not (probe.chips == probe.labels).any() and set(probe.chips.tolist()) == set(range(len(SHAPES)))


def test_chips_cover_the_corner_and_nothing_else():
    rows = list(range(20))
    plain, probe = ShapesProbe(size=20), MarkedProbe("true", size=20)
    bare, shown = plain.load(rows), probe.load(rows)
    differ = (bare != shown).any(1)
    assert not differ[:, SIDE:].any() and not differ[:, :, SIDE:].any()
    middles = shown[:, :, SIDE // 2, SIDE // 2]
    for a in range(20):
        for b in range(20):
            assert torch.equal(middles[a], middles[b]) == (probe.chips[a] == probe.chips[b])
    assert torch.equal(MarkedProbe("none", size=20).load(rows), bare)
    assert torch.equal(stamp(bare, torch.full((20,), -1)), bare)


def test_pictures_do_not_depend_on_their_number_and_kinds_are_told_apart():
    few, many = MarkedProbe("half", size=10), MarkedProbe("half", size=30)
    assert torch.equal(few.chips, many.chips[:10])
    kinds = [MarkedProbe(kind, size=10).fingerprint for kind in ("half", "true", "misleading", "none")]
    assert len(set(kinds)) == 4
    with pytest.raises(UserError, match="kind of marks"):
        Marks("some")
