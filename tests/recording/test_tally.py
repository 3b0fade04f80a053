"""Tails and tallies against sorting everything, however the images come: in batches, processes, spilled or not."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronx.recording.tally import LayerTally, Side, above, largest, lots, merge, next_larger, ordered, trimmed
from neuronx.store.cache import Draft, Entry
from neuronx.store.processes import process

SPECIAL = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 3.4e38, -3.4e38])


def some(seed: int, *shape: int, ties: bool) -> torch.Tensor:
    """Normal values; or few different ones, the awkward ones among them."""
    generator = torch.Generator().manual_seed(seed)
    if ties:
        return SPECIAL[torch.randint(0, len(SPECIAL), shape, generator=generator)]
    return torch.randn(shape, generator=generator)


@given(seed=st.integers(0, 99), ties=st.booleans(), count=st.integers(1, 60), data=st.data())
def test_the_rank_th_largest_of_each_unit(seed, ties, count, data):
    values = some(seed, count, 3, ties=ties)
    rank = data.draw(st.integers(1, count))
    expected = values.sort(0, descending=True).values[rank - 1]
    floor = expected - data.draw(st.sampled_from([0.0, 0.0, 0.5]))
    low = torch.full((3,), -torch.inf)
    for start in (low, floor):
        pairs = list(above(values[: count // 2], low)) + list(above(values[count // 2 :], start))
        assert torch.equal(largest(lambda pairs=pairs: pairs, rank, start), expected)
        assert torch.equal(largest(lambda pairs=pairs, start=start: trimmed(pairs, start), rank, start), expected)
        for enough in (0, rank * 4, count * 3):
            lower = largest(lambda pairs=pairs: pairs, rank, start, enough)
            assert bool((start <= lower).all() and (lower <= expected).all())
            assert enough == 0 or int((values > lower).sum()) <= max(enough, rank * 3)
        if rank > 1:
            above_it = values.sort(0, descending=True).values[rank - 2]
            assert torch.equal(next_larger(pairs, expected, rank), above_it)


def test_floors_rise_among_values_that_differ_in_the_last_bits_only():
    values = 100 + torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)) / 1000
    floor = largest(lambda: above(values, torch.full((2,), -torch.inf)), 100, torch.full((2,), -torch.inf), 300)
    assert int((values > floor).sum()) <= 300


@given(a=st.floats(width=32, allow_nan=False), b=st.floats(width=32, allow_nan=False))
def test_the_order_of_keys_is_the_order_of_values(a, b):
    first, second = ordered(torch.tensor([a, b])).tolist()
    assert (first < second) == (a < b) or a == b == 0


@given(count=st.integers(1, 500), quantile=st.floats(1e-6, 1 - 1e-6))
def test_a_quantile_needs_the_values_of_the_nearer_end(count, quantile):
    side = Side(quantile, count)
    values = torch.arange(count).float()[:, None]
    signed = (values * side.sign).sort(0, descending=True).values
    assert 1 <= side.need <= count // 2 + 1 and 0 <= side.need - side.other <= 1
    got = side.quantile(signed[side.need - 1], signed[side.other - 1])
    assert torch.equal(got, torch.quantile(values.double(), quantile, dim=0).float())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999),
    kind=st.sampled_from(["normal", "special", "few"]),
    by=st.sampled_from(["peak", "pool"]),
    images=st.integers(1, 40),
    k=st.integers(1, 6),
    quantile=st.sampled_from([0.99, 0.9, 0.6, 0.5, 0.2, 0.01]),
    processes=st.integers(1, 3),
    batch=st.integers(1, 9),
    flushes=st.integers(1, 5),
    side=st.integers(1, 3),
)
def test_however_images_come_the_result_is_that_of_sorting(
    tmp_path_factory, eager, seed, kind, by, images, k, quantile, processes, batch, flushes, side
):
    draft = Draft(Entry(tmp_path_factory.mktemp("store"), {}), process())
    generator, shape = torch.Generator().manual_seed(seed), (images, 4, side, side)
    # Means of small whole numbers are the same however they are summed.
    pool = "avg" if kind == "few" else "max"
    few = torch.randint(0, 3, shape, generator=generator).float()
    maps = few if kind == "few" else some(seed, *shape, ties=kind == "special")
    wanted = torch.rand(images, generator=torch.Generator().manual_seed(seed)) < 0.8
    wanted[0] = True
    rows = wanted.nonzero().squeeze(1)
    k = min(k, len(rows))
    batches = torch.arange(images).split(batch)
    for number in range(processes):
        tally = LayerTally(draft, wanted, k, quantile, pool, by)
        tally.done(batches)
        for b in range(number, len(batches), processes):
            memory = torch.channels_last if b % 2 else torch.contiguous_format
            output = maps[batches[b]].to(memory_format=memory)
            tally.add(output + 1, batches[b], 0)  # a layer that runs twice: the last output counts
            tally.add(output, batches[b], 0)
            tally.confirm()
            if b % flushes == 0:
                tally.save()
        tally.save()
    head, thresholds = merge(draft, wanted, k, quantile)
    flat = maps[rows].flatten(2)
    expected = torch.quantile(flat.transpose(0, 1).flatten(1).double(), quantile, dim=1).float()
    assert torch.equal(thresholds, expected)
    peaks, means = flat.amax(2), flat.mean(2) if pool == "avg" else flat.amax(2)
    values = (peaks if by == "peak" else means) + 0.0
    for unit in range(4):
        drawn = lots(rows, torch.tensor(unit)).tolist()
        keys = [(-float(values[i, unit]), -float(means[i, unit]), drawn[i]) for i in range(len(rows))]
        order = sorted(range(len(rows)), key=keys.__getitem__)[:k]
        assert head.rows[unit].tolist() == rows[order].tolist()
        assert torch.equal(head.values[unit], values[order, unit])
        assert head.ties[unit] == (values[:, unit] == values[:, unit].max()).sum()
        first = [int((flat[i, unit] == peaks[i, unit]).nonzero()[0]) for i in order]
        assert head.places[unit].tolist() == first


def test_lots_are_all_different_and_have_nothing_to_do_with_the_order():
    drawn = lots(torch.arange(100_000), torch.arange(3)[:, None])
    assert all(len(row.unique()) == 100_000 for row in drawn)
    assert bool((drawn >= 0).all() and (drawn < 2**32).all())
    ranks = torch.stack([torch.arange(100_000.0), *drawn.argsort().argsort().float()])
    assert float((torch.corrcoef(ranks) - torch.eye(4)).abs().max()) < 0.01
