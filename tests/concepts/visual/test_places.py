"""Places of a picture as features of positions."""

import torch

from neuronx.concepts.visual.places import places


def test_corners_borders_and_parts():
    found = places(12, 9)
    assert found["top right corner"].nonzero().tolist() == [[0, 8]]
    assert torch.equal(found["left border"].nonzero(), torch.stack([torch.arange(12), torch.zeros(12).long()], 1))
    assert found["border"].sum() == 2 * 12 + 2 * 9 - 4 and found["away from the border"].sum() == 10 * 7
    nine = [found[f"{v} {h} part".strip()] for v in ("upper", "", "lower") for h in ("left", "middle", "right")]
    assert torch.stack(nine).sum(0).eq(1).all()
    assert found["upper left part"][:4, :3].all() and found["middle part"][4:8, 3:6].all()


def test_places_that_are_one_have_one_name():
    small = places(2, 2)
    assert "top left corner" in small and "upper left part" not in small and "border" not in small
    assert not places(1, 1)
    assert places(6, 6, border=2)["top left corner"].sum() == 4
