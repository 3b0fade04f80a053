"""The tally: golden numbers of the published code, the definition, and what must not change it."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_dissection import tally as oracle

from neuronx.data.segmentation import Regions
from neuronx.errors import UserError
from neuronx.methods.net_dissect.tally import DENOMINATORS, Tally, Tallying, count, count_masks, tally

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "netdissect_tally.json").read_text())


def test_the_published_variant_matches_the_published_code(golden):
    assert golden.both.tolist() == [row[1:] for row in GOLDEN["tally_both_UxL"]]
    assert golden.truth.tolist() == GOLDEN["tally_labels"][1:]
    assert golden.area("hit").tolist() == GOLDEN["tally_units_cat_UxCat"]
    published = torch.tensor(GOLDEN["iou_UxL"], dtype=torch.float64)[:, 1:]
    assert torch.allclose(golden.iou("hit"), published, rtol=0, atol=5e-10)
    for row in GOLDEN["rows_sorted_by_score_desc"]:
        unit = row["unit"] - 1
        assert float(golden.best("hit").iou[unit]) == pytest.approx(row["score"], abs=1e-12)
        for number, kind in enumerate(GOLDEN["categories"]):
            best = golden.best_of_category(number, "hit")
            assert golden.names[best.concept[unit]] == row[f"{kind}-label"]
            assert float(best.iou[unit]) == pytest.approx(row[f"{kind}-iou"], abs=1e-12)


def test_what_the_paper_changes_on_the_golden_numbers(golden):
    """The published code leaves out images whose labelled objects a unit misses; the paper counts them against it."""
    assert golden.area("hit")[:, 0].tolist() == [15, 26, 6]
    assert golden.area("annotated")[:, 0].tolist() == [29, 28, 19]
    # Scenes and textures are labelled all over an image here, so that whoever fires meets them.
    assert torch.equal(golden.area("hit")[:, 1:], golden.area("annotated")[:, 1:])
    assert golden.area("all")[:, 0].tolist() == [29, 31, 31] == golden.fires.tolist()
    first = {how: golden.best_of_category(0, how).iou.tolist() for how in DENOMINATORS}
    assert first["hit"] == pytest.approx([5 / 22, 4 / 30, 2 / 16], abs=1e-9)
    assert first["annotated"] == pytest.approx([5 / 36, 4 / 32, 2 / 29], abs=1e-9)
    assert first["all"] == pytest.approx([5 / 36, 4 / 35, 2 / 41], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_the_plain_loop(painted, blobs, seed):
    truth, fires = blobs(seed=seed)
    category = [0, 1, 2, 0, 1, 0]
    labelled = painted(truth, category=category)
    made = Tallying(labelled, fires.shape[1])
    for some in torch.arange(len(truth)).split(5):
        regions = labelled.regions(some)
        made.add(count_masks(fires[some], regions), regions)
    slow = oracle(fires.numpy(), truth.numpy(), category, 3)
    found = made.result()
    for name, value in slow.items():
        assert getattr(found, name).tolist() == value.tolist(), name
    assert found.cells == truth[:, 0].numel()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), batch=st.integers(1, 12))
def test_order_and_batches_do_not_matter(painted, blobs, seed, batch):
    truth, fires = blobs(images=8, side=10, seed=seed)
    chance = torch.Generator().manual_seed(seed)
    images, units = (torch.randperm(n, generator=chance) for n in fires.shape[:2])
    maps, thresholds = fires.float(), torch.full((fires.shape[1],), 0.5)

    def tallied(rows: torch.Tensor, columns: torch.Tensor, batch: int) -> Tally:
        labelled = painted(truth, category=[0, 0, 1, 1, 2, 2])
        parts = ((maps[some][:, columns], labelled.regions(some)) for some in rows.split(batch))
        return tally(parts, thresholds, labelled)

    one = tallied(torch.arange(len(truth)), torch.arange(len(units)), len(truth))
    other = tallied(images, units, batch)
    for how in DENOMINATORS:
        iou = one.iou(how)
        assert torch.equal(other.iou(how), iou[units])
        assert bool((iou >= 0).all() and (iou <= 1).all())
        assert bool((one.both <= one.area(how)[:, one.category]).all())
    assert bool((one.both <= one.fires[:, None]).all() and (one.both <= one.truth).all())
    assert bool((one.hit <= one.annotated).all() and (one.annotated <= one.fires[:, None]).all())


def test_a_label_that_covers_everything_is_matched_as_often_as_a_unit_fires(painted, blobs):
    truth, fires = blobs()
    labelled = painted(torch.ones_like(truth[:, :1]))
    regions = labelled.regions(torch.arange(len(truth)))
    made = Tallying(labelled, fires.shape[1])
    made.add(count_masks(fires, regions), regions)
    rate = fires.double().mean((0, 2, 3))
    for how in DENOMINATORS:
        assert torch.allclose(made.result().iou(how)[:, 0], rate, rtol=0, atol=1e-9)


def test_what_is_not_labelled_counts_for_no_concept():
    """Two pictures of one region each, the second without any label."""
    regions = Regions(torch.tensor([[[0, 0]], [[1, 1]]]), torch.tensor([0, 1]), torch.tensor([[True], [False]]))
    counts = count_masks(torch.ones(2, 1, 1, 2, dtype=torch.bool), regions)
    assert counts.tolist() == [[2], [2]]


def test_maps_are_upsampled_before_they_are_cut(painted):
    """A peak between two cells of four: half-pixel bilinear leaves it at the corners, strictly above the threshold."""
    labelled = painted(torch.ones(1, 1, 4, 4, dtype=torch.bool))
    regions = labelled.regions([0])
    maps = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    fired = [int(count(maps, torch.tensor([above]), regions).sum()) for above in (1.0, 0.9, 0.7, 0.5, 0.0)]
    assert fired == [0, 1, 3, 4, 9]


def test_a_unit_that_never_fires_has_no_best_concept(painted, blobs):
    truth, fires = blobs()
    fires[:, 2] = False
    labelled = painted(truth)
    regions = labelled.regions(torch.arange(len(truth)))
    made = Tallying(labelled, fires.shape[1])
    made.add(count_masks(fires, regions), regions)
    best = made.result().best()
    assert int(best.concept[2]) == -1 and float(best.iou[2]) == 0
    assert bool((best.concept[[0, 1, 3, 4]] >= 0).all())
    assert best.detectors(0.0)[0] == 4 and best.detectors(1.0) == (0, 0)


def test_an_unknown_denominator(golden):
    with pytest.raises(UserError, match=r"no denominator .*`anotated`\. Nearest: annotated"):
        golden.iou("anotated")
