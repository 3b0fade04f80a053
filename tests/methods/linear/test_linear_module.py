"""Linear heads, and the rows of recorded numbers that they are fitted on."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from linear_cases import planted

from neuronx.errors import UserError
from neuronx.methods.linear.method import LinearExplanations, LinearHeads
from neuronx.methods.linear.moments import Rows, shares
from neuronx.methods.linear.search import forward
from neuronx.types import Concepts, Unit

CASE = planted(images=101, units=6)
NAMES = tuple(f"concept {c}" for c in range(40))
UNITS = tuple(Unit("layer", k) for k in range(6))


def rows(case=CASE, concepts=None, batch_size=16):
    chosen = torch.arange(40) if concepts is None else concepts
    values = [case.values[:, :4], case.values[:, 4:]]
    return Rows(case.scores, chosen, values, [torch.arange(4), torch.arange(2)], case.train, case.val, batch_size)


def fitted(data=None):
    concepts = Concepts(NAMES, CASE.scores, ("digest",))
    return LinearExplanations(None).fit_rows(data or rows(), concepts, UNITS, torch.arange(12).view(6, 2))


def test_one_pass_is_the_fit_on_the_moments():
    heads, expected = fitted(), forward(CASE.moments("train"), CASE.moments("val"))
    assert torch.equal(heads.columns, expected.chosen)
    for name in ("weights", "bias", "correlation"):
        torch.testing.assert_close(getattr(heads, name), getattr(expected, name), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_does_not_matter(batch_size):
    heads, other = fitted(), fitted(rows(batch_size=batch_size))
    assert torch.equal(heads.columns, other.columns)
    torch.testing.assert_close(heads.weights, other.weights, rtol=1e-10, atol=1e-12)


def test_predicts_any_image():
    heads = fitted()
    predicted = heads(CASE.scores[CASE.test])
    terms = heads.explanations()
    for k, unit in enumerate(UNITS):
        assert terms[k].unit == unit
        by_hand = sum(w * CASE.scores[CASE.test][:, NAMES.index(name)].double() for name, w in terms[k].terms)
        torch.testing.assert_close(predicted[:, k], by_hand + terms[k].bias)
    r = torch.corrcoef(torch.stack([predicted[:, 0], CASE.values[CASE.test, 0].double()]))[0, 1]
    assert r > 0.7
    assert heads.weight.shape == (6, 40) and heads.weight.is_sparse


def test_terms_stand_by_weight():
    for one in fitted().explanations():
        weights = [w for _, w in one.terms]
        assert weights == sorted(weights, reverse=True) and weights
        assert dict(one.notes).keys() == {"val correlation"}


def test_reading_some_concepts_only():
    heads = fitted(rows(concepts=torch.tensor([c for c in range(40) if c % 3])))
    chosen = heads.columns[heads.columns >= 0]
    assert (chosen % 3 != 0).all()
    assert heads(CASE.scores).shape == (101, 6)


def test_saved_and_loaded_heads_are_the_same(tmp_path):
    heads = fitted()
    again = LinearHeads.load(heads.save(tmp_path / "run" / "heads.safetensors"))
    assert again.explanations() == heads.explanations()
    assert again.explanations()[1].evidence == (2, 3)
    assert again.explanations()[1].made_by == ("digest",)
    assert torch.equal(again(CASE.scores), heads(CASE.scores))
    assert again.concepts == NAMES and again.units == UNITS


def test_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    for write in (lambda: path.write_bytes(b"nonsense"), lambda: save_file({"a": torch.zeros(1)}, path)):
        write()
        with pytest.raises(UserError, match=r"x\.safetensors .* linear heads"):
            LinearHeads.load(path)
    with pytest.raises(UserError, match="linear heads"):
        LinearHeads.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(bad):
    broken = planted(images=101, units=6)
    broken.values[CASE.val[3], 4] = bad
    with pytest.raises(UserError, match="Unit `layer:4` has values that are NaN or infinite"):
        fitted(rows(broken))


def test_every_rank_gets_as_many_batches_and_no_image_twice():
    for n, world, size in ((101, 2, 16), (70, 4, 1000), (5, 7, 2), (64, 3, 8)):
        of_ranks = [shares(torch.arange(n), size, rank, world) for rank in range(world)]
        assert len({len(share) for share in of_ranks}) == 1
        assert sorted(row for share in of_ranks for batch in share for row in batch.tolist()) == list(range(n))
        assert max(len(batch) for share in of_ranks for batch in share) <= size


def fit_one_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for solver in ("exact", "prox"):
        method = LinearExplanations(None, solver=solver)
        heads = method.fit_rows(rows(), Concepts(NAMES, CASE.scores), UNITS, torch.arange(12).view(6, 2))
        heads.save(f"{folder}/{solver}-{rank}.safetensors")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path):
    processes.spawn(fit_one_rank, (str(tmp_path),), nprocs=2)
    for solver in ("exact", "prox"):
        alone = LinearExplanations(None, solver=solver).fit_rows(
            rows(), Concepts(NAMES, CASE.scores), UNITS, torch.arange(12).view(6, 2)
        )
        for rank in range(2):
            together = LinearHeads.load(tmp_path / f"{solver}-{rank}.safetensors")
            assert torch.equal(alone.columns, together.columns)
            for name in ("weights", "bias", "correlation"):
                torch.testing.assert_close(getattr(alone, name), getattr(together, name), rtol=1e-10, atol=1e-10)
