from functools import partial
from types import SimpleNamespace

import pytest
import torch
from linear_cases import planted

from neuronx.errors import UserError
from neuronx.methods.linear.module import LinearHeads
from neuronx.methods.linear.rows import Rows, fit
from neuronx.methods.linear.search import forward
from neuronx.types import Unit

CASE = planted(images=101, units=6)
NAMES = tuple(f"concept {c}" for c in range(40))
UNITS = tuple(Unit("layer", k) for k in range(6))


def rows(case=CASE, concepts=None, batch_size=16):
    chosen = torch.arange(40) if concepts is None else concepts
    values = [case.values[:, :4], case.values[:, 4:]]
    return Rows(case.scores, chosen, values, [torch.arange(4), torch.arange(2)], case.train, case.val, batch_size)


def fitted(trainer, data=None, read=None):
    heads = LinearHeads(NAMES, UNITS, 10, partial(forward, max_length=10), read)
    fit(heads, data or rows(), trainer(max_epochs=1))
    return heads


def test_one_pass_of_the_trainer_is_the_fit_on_the_moments(trainer):
    heads, expected = fitted(trainer), forward(CASE.moments("train"), CASE.moments("val"))
    assert torch.equal(heads.columns, expected.chosen)
    torch.testing.assert_close(heads.weights.data, expected.weights, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(heads.bias.data, expected.bias, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(heads.correlation.data, expected.correlation, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_does_not_matter(trainer, batch_size):
    heads, other = fitted(trainer), fitted(trainer, rows(batch_size=batch_size))
    assert torch.equal(heads.columns, other.columns)
    torch.testing.assert_close(heads.weights, other.weights, rtol=1e-10, atol=1e-12)


def test_predicts_any_image(trainer):
    heads = fitted(trainer)
    predicted = heads(CASE.scores[CASE.test])
    terms = heads.explanations()
    for k, unit in enumerate(UNITS):
        assert terms[k].unit == unit
        by_hand = sum(w * CASE.scores[CASE.test][:, NAMES.index(name)].double() for name, w in terms[k].terms)
        torch.testing.assert_close(predicted[:, k], by_hand + terms[k].bias)
    r = torch.corrcoef(torch.stack([predicted[:, 0], CASE.values[CASE.test, 0].double()]))[0, 1]
    assert r > 0.7
    assert heads.weight.shape == (6, 40) and heads.weight.is_sparse
    done = trainer().predict(heads, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(CASE.scores), 50))
    torch.testing.assert_close(torch.cat(done)[CASE.test], predicted)


def test_terms_stand_by_weight(trainer):
    for one in fitted(trainer).explanations():
        weights = [w for _, w in one.terms]
        assert weights == sorted(weights, reverse=True) and weights
        assert dict(one.notes).keys() == {"val correlation"}


def test_reading_some_concepts_only(trainer):
    read = torch.tensor([c for c in range(40) if c % 3])
    heads = fitted(trainer, rows(concepts=read), read)
    chosen = heads.columns[heads.columns >= 0]
    assert (chosen % 3 != 0).all()
    assert heads(CASE.scores).shape == (101, 6)


def test_saved_and_loaded_heads_are_the_same(trainer, tmp_path):
    heads = fitted(trainer)
    heads.evidence, heads.encoders = torch.arange(12).view(6, 2), ("digest",)
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
def test_what_is_not_finite_is_named(trainer, bad):
    values = CASE.values.clone()
    values[CASE.val[3], 4] = bad
    broken = planted(images=101, units=6)
    object.__setattr__(broken, "values", values)
    with pytest.raises(UserError, match="Unit `layer:4` has values that are NaN or infinite"):
        fitted(trainer, rows(broken))


def test_heads_without_a_search_cannot_be_fitted(trainer):
    with pytest.raises(ValueError, match="without a search"):
        fit(LinearHeads(NAMES, UNITS, 10), rows(), trainer(max_epochs=1))


def test_every_rank_gets_as_many_batches_and_no_image_twice():
    for n, world, size in ((101, 2, 16), (70, 4, 1000), (5, 7, 2), (64, 3, 8)):
        data = rows(batch_size=size)
        data.train = torch.arange(n)
        shares = []
        for rank in range(world):
            data.trainer = SimpleNamespace(global_rank=rank, world_size=world)
            shares.append(list(data.train_dataloader().sampler))
        assert len({len(share) for share in shares}) == 1
        assert sorted(row for share in shares for batch in share for row in batch) == list(range(n))
        assert max(len(batch) for share in shares for batch in share) <= size


@pytest.mark.slow
def test_two_processes_give_what_one_gives(trainer):
    alone, together = fitted(trainer), fitted(partial(trainer, devices=2, strategy="ddp_spawn"))
    assert torch.equal(alone.columns, together.columns)
    for name in ("weights", "bias", "correlation"):
        torch.testing.assert_close(getattr(alone, name), getattr(together, name), rtol=1e-10, atol=1e-10)
