import numpy as np
import oracles_milan as oracle
import pytest
import torch
from milan_cases import captioner, features, published_state
from milan_cases import oracle as weights_of
from torch import nn
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.methods.milan.networks import Decoder, late_gradient
from neuronx.methods.milan.training.captioner import decoder_loss, language_model_loss, uneven_attention

TARGETS = torch.tensor([[0, 3, 5, 15, 16], [4, 15, 16, 16, 16], [17, 2, 2, 1, 15], [0, 3, 5, 6, 15]])
UNIT = torch.tensor([2, 0, 0, 1])


@pytest.fixture(scope="module")
def case():
    state = published_state()
    return captioner(state).eval(), weights_of(state)


def test_following_captions_is_the_equations(case):
    model, weights = case
    v = features()
    outputs, attention = model.decoder(v, TARGETS, UNIT)
    log_p = model.decoder.predict(outputs).log_softmax(-1)
    for i, (unit, tokens) in enumerate(zip(UNIT, TARGETS.tolist(), strict=True)):
        expected, looked = oracle.follow(weights, v[unit].double().numpy(), tokens)
        np.testing.assert_allclose(log_p[i].detach(), expected, atol=1e-5)
        np.testing.assert_allclose(attention[i].detach(), looked, atol=1e-5)


def test_one_step_after_the_other_is_following(case):
    model, _ = case
    v = features()
    expected = model.decoder.predict(model.decoder(v, TARGETS, UNIT)[0]).log_softmax(-1)
    state = model.decoder.start(v, UNIT)
    before = torch.full((4,), model.vocabulary.specials.start)
    for t in range(TARGETS.shape[1]):
        log_p, state = model.decoder.step(before, state)
        torch.testing.assert_close(log_p, expected[:, t], atol=1e-6, rtol=1e-5)
        before = TARGETS[:, t]


def test_words_that_continue_one_beginning_share_its_work(case):
    model, _ = case
    v = features(D=10)
    _, state = model.decoder.step(torch.tensor([14, 14, 14]), model.decoder.start(v))
    words, parents = torch.tensor([4, 1, 7, 7, 0]), torch.tensor([2, 0, 2, 0, 0])
    together, after = model.decoder.step(words, state, parents)
    apart = [model.decoder.step(words[i : i + 1], state.of(parents[i : i + 1])) for i in range(5)]
    torch.testing.assert_close(together, torch.cat([log_p for log_p, _ in apart]))
    torch.testing.assert_close(after.h, torch.cat([one.h for _, one in apart]))
    assert after.unit.tolist() == parents.tolist()


def test_the_language_model_is_its_equations(case):
    model, weights = case
    log_p = model.language_model.predict(model.language_model(TARGETS)).log_softmax(-1)
    for i, tokens in enumerate(TARGETS.tolist()):
        np.testing.assert_allclose(log_p[i].detach(), oracle.follow_language(weights, tokens), atol=1e-5)


def test_captions_are_scored_up_to_the_first_stop(case):
    model, weights = case
    tokens = torch.tensor(
        [[0, 3, 15, 15, 15], [0, 3, 5, 15, 15], [15, 15, 15, 15, 15], [0, 3, 5, 6, 7], [0, 3, 5, 6, 15]]
    )
    expected = [oracle.score(oracle.follow_language(weights, one), one, 15) for one in tokens.tolist()]
    np.testing.assert_allclose(model.language_model.score(tokens), expected, atol=1e-5)


def test_the_published_score_counts_one_stop_more(case):
    model, weights = case
    tokens = torch.tensor([[0, 3, 15, 15, 15], [0, 3, 5, 6, 15], [0, 3, 5, 15, 15]])
    found = model.language_model.score(tokens, past_stop=True)
    for i, end in enumerate((4, 5, 5)):
        each = oracle.follow_language(weights, tokens[i].tolist())
        assert found[i].item() == pytest.approx(sum(each[t][tokens[i, t]] for t in range(end)), abs=1e-5)


def test_no_beginning_is_scored_twice(case, monkeypatch):
    model, _ = case
    read = []
    step = model.language_model.step

    def counting(tokens, state, parents):
        read.append(len(tokens))
        return step(tokens, state, parents)

    monkeypatch.setattr(model.language_model, "step", counting)
    model.language_model.score(torch.tensor([[0, 3, 5, 15], [0, 3, 15, 15], [0, 4, 5, 6], [0, 3, 5, 15]]))
    assert read == [1, 1, 2, 2]


def plain_loss(decoder, v, targets):
    """The loss from torch's own modules, a step at a time, with the keys of every step."""
    pooled = v.mean(1)
    h, c = torch.tanh(decoder.initial_h(pooled)), torch.tanh(decoder.initial_c(pooled))
    before, logits, attentions = torch.full_like(targets[:, 0], decoder.specials.start), [], []
    for t in range(targets.shape[1]):
        energy = decoder.attention(torch.tanh(decoder.query(h).unsqueeze(1) + decoder.key(v)))
        attention = energy.softmax(1)
        seen = torch.sigmoid(decoder.gate(h)) * (attention * v).sum(1)
        h, c = decoder.cell(torch.cat([decoder.embedding(before), seen], 1), (h, c))
        logits.append(decoder.output(h))
        attentions.append(attention.squeeze(2))
        before = targets[:, t]
    logits, total = torch.stack(logits, 1), torch.stack(attentions, 1).sum(1)
    nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=decoder.specials.pad)
    return nll + ((1 - total) ** 2).mean()


@pytest.mark.parametrize("shared", [False, True])
def test_the_loss_and_all_its_gradients_are_the_plain_ones(shared):
    torch.manual_seed(0)
    decoder = Decoder(14, 10, 6, 8, 5, dropout=0.0).double()
    v, unit = features(4).double(), UNIT if shared else None
    ours = decoder_loss(decoder, v, TARGETS, unit)
    found = torch.autograd.grad(ours, list(decoder.parameters()))
    plain = plain_loss(decoder, v[UNIT] if shared else v, TARGETS)
    torch.testing.assert_close(ours, plain)
    for (name, _), a, b in zip(
        decoder.named_parameters(), found, torch.autograd.grad(plain, list(decoder.parameters())), strict=True
    ):
        torch.testing.assert_close(a, b, msg=name)


def test_a_late_gradient_is_the_gradient():
    torch.manual_seed(0)
    weight, base = (torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in ((3, 2), (4, 5, 3)))
    xs = torch.randn(4, 5, 2, dtype=torch.double)
    inputs = []
    out = [torch.addmm(b, x, weight.detach().T) for b, x in zip(late_gradient(base, weight, inputs), xs, strict=True)]
    inputs += list(xs)
    found = torch.autograd.grad(torch.stack(out).pow(3).sum(), (weight, base))
    expected = torch.autograd.grad((xs @ weight.T + base).pow(3).sum(), (weight, base))
    torch.testing.assert_close(found, expected)


def test_the_regulariser_counts_the_steps_after_the_stop():
    attention = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.2, 0.8], [0.8, 0.2]]])
    assert uneven_attention(attention).item() == pytest.approx((0.25 + 0.25) / 4)


def test_pads_do_not_count_and_weight_nought_leaves_the_likelihood(case):
    model, _ = case
    v, wider = features(), F.pad(TARGETS[:3], (0, 2), value=16)
    alone = decoder_loss(model.decoder, v, TARGETS[:3], regularization=0)
    torch.testing.assert_close(alone, decoder_loss(model.decoder, v, wider, regularization=0))
    torch.testing.assert_close(
        language_model_loss(model.language_model, TARGETS),
        language_model_loss(model.language_model, F.pad(TARGETS, (0, 2), value=16)),
    )


def test_both_models_learn_captions_by_heart():
    torch.manual_seed(0)
    model = captioner(published_state())
    v, targets = features(3), TARGETS[:3]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        loss = decoder_loss(model.decoder, v, targets) + language_model_loss(model.language_model, targets)
        loss.backward()
        optimizer.step()
    model.eval()
    assert decoder_loss(model.decoder, v, targets, regularization=0) < 0.4
    assert model(v, "greedy", pmi=False).captions == model.vocabulary.sentences(targets)


def test_mixed_precision_trains_and_writes(case):
    model, _ = case
    v = features()
    exact = decoder_loss(model.decoder, v, TARGETS[:3])
    with torch.autocast("cpu", torch.bfloat16):
        loss = decoder_loss(model.decoder, v, TARGETS[:3])
        model(v, "rerank", beam_size=3, length=4)
        model(v, "beam", beam_size=3, length=4)
    loss.backward()
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)
    assert all(p.grad.isfinite().all() for p in model.decoder.parameters())
    model.zero_grad()


def test_half_precision_features_are_taken(case):
    model, _ = case
    assert model(features().half(), "greedy", length=3).scores.dtype == torch.float32


def test_features_of_another_encoder_are_refused():
    with pytest.raises(UserError, match=r"takes features \(units, exemplars, 10\), not \(3, 4, 9\)"):
        Decoder(14, 10, 6, 8).start(features(D=9))


def test_attention_is_as_wide_as_the_narrower_of_512_and_the_features():
    assert isinstance(Decoder(3, 20, 4, 8).query, nn.Linear)
    assert Decoder(3, 20, 4, 8).query.out_features == 20
    assert Decoder(3, 600, 4, 8).query.out_features == 512
