"""The search for formulas against one that scores every formula on full masks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_dissection import OPERATORS, beam_search, formula_mask, in_order, iou

from neuronx.methods.net_dissect import search as searching
from neuronx.methods.net_dissect.search import Beam, Gathering, Patterns, as_published, formula, search
from neuronx.methods.net_dissect.tally import count_masks


def gathered(painted, truth, fires, batch: int = 5) -> Patterns:
    labelled = painted(truth)
    found = Gathering(fires.shape[1], truth.shape[1])
    for some in torch.arange(len(truth)).split(batch):
        regions = labelled.regions(some)
        found.add(count_masks(fires[some], regions), regions)
    return found.result()


def spelt(beam: Beam, unit: int) -> list[tuple]:
    """The formulas of one unit as the oracle writes them, with their scores."""
    found = []
    rows = zip(beam.score[unit].tolist(), beam.concepts[unit].tolist(), beam.operators[unit].tolist(), strict=True)
    for score, concepts, operators in rows:
        if score > 0:
            rest = [(OPERATORS[o], c) for c, o in zip(concepts[1:], operators[1:], strict=True) if c >= 0]
            found.append((score, (concepts[0], *rest)))
    return found


def flat(masks: torch.Tensor):
    """(n, cells) for masks (N, n, H, W)."""
    return masks.transpose(0, 1).flatten(1).numpy()


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    length=st.integers(1, 4),
    beam=st.integers(1, 7),
    penalty=st.sampled_from([1.0, 0.9]),
    batch=st.integers(1, 6),
)
def test_the_beam_is_that_of_the_plain_search(painted, blobs, seed, length, beam, penalty, batch):
    truth, fires = blobs(images=6, side=9, units=4, seed=seed)
    found = search(gathered(painted, truth, fires, batch), length, beam, penalty)[-1]
    for unit, mask in enumerate(flat(fires)):
        slow = beam_search(mask, flat(truth), length, beam, penalty)
        assert spelt(found, unit) == slow


def test_counts_are_those_of_the_masks_of_the_formulas(painted, blobs):
    truth, fires = blobs(seed=3)
    beams = search(gathered(painted, truth, fires), 3, 6)
    for beam in beams:
        for unit, mask in enumerate(flat(fires)):
            for place, (score, one) in enumerate(spelt(beam, unit)):
                where = formula_mask(flat(truth), one)
                assert int(beam.area[unit, place]) == where.sum()
                assert int(beam.both[unit, place]) == (where & mask).sum()
                assert score == pytest.approx(iou(mask, where), abs=1e-12)
    assert bool((beams[1].score[:, 0] >= beams[0].score[:, 0]).all() and (beams[2].score >= beams[1].score).all())


def test_formulas_of_a_beam_differ_and_name_no_concept_twice(painted, blobs):
    truth, fires = blobs(images=20, concepts=8, seed=5)
    for beam in search(gathered(painted, truth, fires), 4, 12):
        for unit in range(fires.shape[1]):
            formulas = [one for _, one in spelt(beam, unit)]
            assert len({in_order(one) for one in formulas}) == len(formulas)
            for one in formulas:
                concepts = [one[0], *(concept for _, concept in one[1:])]
                assert len(set(concepts)) == len(concepts)


@pytest.mark.parametrize(
    "planted",
    [((2,)), ((0, ("AND NOT", 3))), ((1, ("AND", 4), ("AND NOT", 0))), ((2, ("OR", 5), ("AND NOT", 1)))],
)
def test_planted_formulas_are_found(painted, blobs, planted):
    truth, _ = blobs(images=40, seed=7)
    mask = torch.from_numpy(formula_mask(flat(truth), planted)).view(len(truth), 1, *truth.shape[2:])
    beam = search(gathered(painted, truth, mask), 3, 10)[-1]
    score, found = spelt(beam, 0)[0]
    assert score == pytest.approx(1)
    assert bool((formula_mask(flat(truth), found) == flat(mask)[0]).all())


def test_blocks_do_not_matter(painted, blobs, monkeypatch):
    truth, fires = blobs(seed=9)
    found = gathered(painted, truth, fires)
    whole = search(found, 3, 5)[-1]
    monkeypatch.setattr(searching, "PATTERNS_AT_ONCE", 3)
    monkeypatch.setattr(searching, "MEMORY", 40)
    monkeypatch.setattr(searching, "NUMBERS_AT_ONCE", 1)
    for name, value in vars(search(found, 3, 5)[-1]).items():
        assert torch.equal(value, getattr(whole, name)), name


def test_patterns_are_the_same_in_any_batches(painted, blobs, monkeypatch):
    truth, fires = blobs(seed=11)
    one = gathered(painted, truth, fires, 12)
    monkeypatch.setattr("neuronx.methods.net_dissect.search.MERGE_AT", 1)
    for name, value in vars(gathered(painted, truth, fires, 2)).items():
        assert torch.equal(value, getattr(one, name)), name
    assert int(one.sizes.sum()) == int(truth.any(1).sum())
    assert one.fires.tolist() == fires.sum((0, 2, 3)).tolist()


def test_a_penalty_makes_formulas_shorter(painted, blobs):
    truth, fires = blobs(seed=13)
    found = gathered(painted, truth, fires)
    lengths = [(search(found, 3, 5, penalty)[-1].concepts[:, 0] >= 0).sum() for penalty in (1.0, 0.9, 0.1)]
    assert lengths[0] >= lengths[1] >= lengths[2] == fires.shape[1]
    ours, theirs = (search(found, 3, 5, 0.97, published)[-1] for published in (False, True))
    assert (theirs.operators[:, 0] == 2).sum() <= (ours.operators[:, 0] == 2).sum()


def test_units_and_images_without_anything(painted, blobs):
    truth, fires = blobs()
    fires[:, 1] = False
    found = search(gathered(painted, truth, fires), 3, 5)[-1]
    assert spelt(found, 1) == [] and len(spelt(found, 0)) == 5
    nothing = search(gathered(painted, truth & False, fires), 3, 5)[-1]
    assert bool((nothing.concepts == -1).all())


def test_formulas_in_words():
    names = ("red", "big square", "water", "blue")
    assert str(formula([2, 0, 3], [-1, 0, 2], names)) == "(water OR red) AND NOT blue"
    assert str(formula([2, 0, 3], [-1, 0, 0], names)) == "water OR red OR blue"
    assert str(formula([1, 0, 3], [-1, 2, 1], names)) == "big square AND NOT red AND blue"
    assert str(formula([1, -1, -1], [-1, -1, -1], names)) == "big square"
    assert as_published([2, 0, 3], [-1, 0, 2], ("red-c", "s", "water", "blue-c")) == (
        "((water OR red-c) AND (NOT blue-c))"
    )
