"""Rows of images by activation range, against sorting one unit at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronx.errors import UserError
from neuronx.recording.tally import lots
from neuronx.report import exemplar_grids
from neuronx.report.exemplar_grids import activation_ranges


@settings(deadline=None, max_examples=50)
@given(images=st.integers(1, 700), units=st.integers(1, 4), n=st.integers(1, 8), seed=st.integers(0, 50))
def test_images_come_from_their_range_and_limits_are_those_of_the_whole_range(images, units, n, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 200, (images, units), generator=generator).float()
    rows = torch.randperm(3 * images, generator=generator)[:images].sort().values
    found = activation_ranges(values, rows, n=n, seed=seed)
    assert found.ranks == tuple((a, min(b, images)) for a, b in exemplar_grids.RANKS if a < images)
    assert found.rows.shape == found.activations.shape == (units, len(found.ranks), n)
    drawn = lots(rows, torch.tensor(0)).tolist()  # of equally active images, whichever way the folder is sorted
    for unit in range(units):
        order = sorted(range(images), key=lambda i, unit=unit: (-float(values[i, unit]), drawn[i]))
        for number, (first, end) in enumerate(found.ranks):
            chosen = [row for row in found.rows[unit, number].tolist() if row >= 0]
            assert len(chosen) == min(n, end - first) == len(set(chosen))
            positions = [order.index(rows.tolist().index(row)) for row in chosen]
            assert positions == sorted(positions) and first <= positions[0] and positions[-1] < end
            active = found.activations[unit, number]
            assert active[: len(chosen)].tolist() == [float(values[order[p], unit]) for p in positions]
            assert bool(active[len(chosen) :].isnan().all())
            assert found.high[unit, number] == values[order[first], unit]
            assert found.low[unit, number] == values[order[end - 1], unit]


def test_a_units_row_does_not_depend_on_the_others_or_on_pieces(monkeypatch):
    values = torch.randn(300, 7)
    whole = activation_ranges(values)
    assert torch.equal(activation_ranges(values[:, 4:5]).rows[0], whole.rows[4])
    monkeypatch.setattr(exemplar_grids, "CHUNK", 600)
    assert torch.equal(activation_ranges(values).rows, whole.rows)
    assert not torch.equal(activation_ranges(values, seed=1).rows, whole.rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n=0"),
        ({"ranks": [(5, 5)]}, "5-5 holds nothing"),
        ({"ranks": [(-1, 5)]}, "-1-5 holds nothing"),
        ({"ranks": [(50, 500)]}, "There are 20 images only, and the first range begins at rank 50"),
    ],
)
def test_bad_input_is_said(options, message):
    with pytest.raises(UserError, match=message):
        activation_ranges(torch.randn(20, 2), **options)
