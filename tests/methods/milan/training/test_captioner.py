from functools import partial

import pytest
import torch
from captioning import fit, lesson, stored, world
from lightning import Callback

from neuronx.errors import UserError
from neuronx.methods.milan.training.captioner import BestWeights, DecoderLearning
from neuronx.methods.milan.training.descriptions import Described, Descriptions, held_out


class Follow(Callback):
    """Remembers the weights and the metrics of every epoch."""

    def __init__(self):
        self.weights, self.metrics = [], []

    def on_validation_end(self, trainer, pl_module):
        self.weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})
        self.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_captioner_learns_what_units_have(tmp_path, trainer):
    captioner, facts = fit(tmp_path, trainer)
    features, said = world(30, seed=1)
    for options in ({"strategy": "greedy", "pmi": False}, {"beam_size": 5}):
        captions = captioner(features[torch.arange(30)], **options).captions
        named = [
            all(word in caption.lower() for word in one[0].split()) for caption, one in zip(captions, said, strict=True)
        ]
        assert sum(named) >= 27
    assert facts["decoder"]["held-out loss"] < 1.5 and facts["decoder"]["best epoch"] < facts["decoder"]["epochs"]
    assert not captioner.training and set(facts) == {"language model", "decoder"}
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"decoder.ckpt", "language_model.ckpt"}


def test_features_of_unequal_scale_are_learned_from_as_well(tmp_path, trainer):
    features, said = world()
    values = features[torch.arange(len(features))]
    scale = 10 ** torch.linspace(-2, 2, values.shape[2])
    unequal = stored(values * scale + 5, "unequal")
    captioner, _ = lesson(language_model=False).fit(unequal, said, trainer, tmp_path)
    captions = captioner(unequal[torch.arange(30)], "greedy", pmi=False).captions
    assert sum(one[0].split()[0] in text.lower() for text, one in zip(captions, said[:30], strict=True)) >= 27
    plain, _ = lesson(language_model=False, epochs=1, standardise=False).fit(unequal, said, trainer, tmp_path)
    assert not plain.decoder.mean.any() and (plain.decoder.deviation == 1).all()


def test_the_weights_of_the_best_epoch_are_given_back(tmp_path, trainer):
    follow = Follow()
    captioner, facts = fit(
        tmp_path,
        partial(trainer, callbacks=[follow]),
        language_model=False,
        stop="loss",
        lr=0.05,
        patience=1,
        epochs=30,
    )
    losses = [metrics["decoder/val_loss"] for metrics in follow.metrics]
    best = losses.index(min(losses))
    assert facts["decoder"]["best epoch"] == best and facts["decoder"]["epochs"] == len(losses) == best + 3
    own = {f"model.{name}": value for name, value in captioner.decoder.state_dict().items()}
    assert same(own, follow.weights[best]) and not same(own, follow.weights[-1])


def test_a_resumed_run_ends_as_an_undisturbed_one(tmp_path, trainer):
    whole, facts = fit(tmp_path / "whole", trainer, epochs=4)
    fit(tmp_path / "part", trainer, epochs=2)
    again, resumed = fit(tmp_path / "rest", trainer, ckpt_path=tmp_path / "part", epochs=4)
    assert same(whole.state_dict(), again.state_dict())
    assert facts["decoder"]["steps"] == resumed["decoder"]["steps"]


def test_a_run_that_had_ended_stays_as_it_was(tmp_path, trainer):
    options = {"patience": 0, "stop": "loss", "lr": 0.05, "epochs": 30}
    whole, facts = fit(tmp_path / "whole", trainer, **options)
    again, resumed = fit(tmp_path / "rest", trainer, ckpt_path=tmp_path / "whole" / "decoder.ckpt", **options)
    assert same(whole.state_dict(), again.state_dict())
    assert resumed["decoder"]["epochs"] == facts["decoder"]["epochs"] < 30


def test_mixed_precision_learns_too(tmp_path, trainer):
    captioner, facts = fit(tmp_path, partial(trainer, precision="bf16-mixed"), stop="bleu")
    assert facts["decoder"]["held-out bleu"] > 0.3
    assert captioner.decoder.key.weight.dtype == torch.float32


def test_units_are_held_out_from_both_models(tmp_path, trainer, monkeypatch):
    seen = {}
    from neuronx.methods.milan.training import milan

    def learn(module, data, *rest, **options):
        seen[module.name] = data
        return {}

    monkeypatch.setattr(milan, "learn", learn)
    fit(tmp_path, trainer)
    decoder, language_model = seen["decoder"], seen["language_model"]
    for data in (decoder, language_model):
        assert not set(data.train.unit.tolist()) & set(data.val.unit.tolist())
    assert set(decoder.val.unit.tolist()) == set(language_model.val.unit.tolist())
    assert len(decoder.described.val) == 10 and len(decoder.train.unit) == 3 * 86


@pytest.mark.parametrize("world_size, rows", [(1, 70), (2, 70), (3, 65), (2, 33), (4, 258)])
def test_processes_share_each_batch(world_size, rows):
    from neuronx.methods.milan.training.descriptions import _Shares

    def order():
        return torch.randperm(rows, generator=torch.Generator().manual_seed(1))

    alone = list(_Shares(rows, 32, 0, 1, order))
    shares = [_Shares(rows, 32, rank, world_size, order) for rank in range(world_size)]
    assert len({len(one) for one in shares}) == 1
    together = list(zip(*shares, strict=True))
    assert len(together) == len(shares[0])
    for batch in together:
        whole = batch[0][1]
        assert [row for mine, _ in batch for row in mine] == whole and all(
            mine and both == whole for mine, both in batch
        )
    assert sorted(row for _, whole in shares[0] for row in whole) == list(range(rows))
    if rows % 32 >= world_size:
        assert [whole for _, whole in shares[0]] == [whole for _, whole in alone]


def test_shares_of_a_loss_are_the_whole():
    features, said = world(20)
    train, val = held_out(20, 0.2, 0)
    one = lesson(dropout=0.0)
    from neuronx.methods.milan.networks import Vocabulary

    data = Descriptions(Described(features, said, train, val, Vocabulary.build(said)), 30, 0)
    captioner = one.new(data.described.vocabulary, 7)
    module = DecoderLearning(captioner, said)
    table = data.train_dataloader().dataset
    rows = list(range(30))
    whole = module.loss(table[rows, rows])
    parts = [module.loss(table[rows[:11], rows]), module.loss(table[rows[11:], rows])]
    torch.testing.assert_close(sum(parts), whole)


def test_worse_epochs_are_counted():
    class Run:
        sanity_checking = should_stop = False

    best, run, module = BestWeights("x", True, 1), Run(), torch.nn.Linear(1, 1)
    for epoch, score in enumerate((1.0, 2.0, float("nan"), 2.0)):
        assert not run.should_stop
        run.current_epoch, run.callback_metrics = epoch, {"x": score}
        best.on_validation_end(run, module)
    assert run.should_stop and best.epoch == 1 and best.score == 2


def test_mistakes_are_said(tmp_path, trainer):
    with pytest.raises(UserError, match="bleu"):
        fit(tmp_path, trainer, stop="blue")
    with pytest.raises(UserError, match="2 at least"):
        lesson().fit(world(5)[0], [("a",), (), (), (), ()], trainer, tmp_path)
    with pytest.raises(UserError, match="no checkpoint"):
        fit(tmp_path, trainer, ckpt_path=tmp_path / "nothing")
    with pytest.raises(UserError, match="between 0 and 1"):
        held_out(10, 1.0, 0)
    fit(tmp_path, trainer, epochs=1)
    with pytest.raises(UserError, match="another network"):
        fit(tmp_path, trainer, epochs=1, ckpt_path=tmp_path, hidden_size=16)
