import numpy as np
import oracles_milan as oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from milan_cases import WORDS, captioner, features, published_state
from milan_cases import oracle as weights_of

from neuronx.errors import UserError
from neuronx.methods.milan import captioner as search
from neuronx.methods.milan.captioner import Beams, Captioner
from neuronx.methods.milan.networks import Decoder, Vocabulary

WIDTH, LENGTH, WEIGHT = 5, 6, 0.2


@pytest.fixture(scope="module")
def case():
    state = published_state()
    return captioner(state, beam_size=WIDTH, length=LENGTH, temperature=WEIGHT), weights_of(state), features(5)


def exactly(tokens, expected, stop):
    length = tokens.shape[1]
    assert tokens.tolist() == [one + [stop] * (length - len(one)) for one in expected]


@pytest.mark.parametrize("weight", [0, WEIGHT])
def test_greedy_is_the_oracles(case, weight):
    model, weights, v = case
    found = model(v, "greedy", pmi=bool(weight))
    expected = [oracle.greedy(weights, one.double().numpy(), LENGTH, weight) for one in v]
    exactly(found.tokens, expected, weights.stop)
    for i, tokens in enumerate(expected):
        each = oracle.weigh(weights, v[i].double().numpy(), tokens, weight)
        assert found.scores[i].item() == pytest.approx(oracle.score(each, tokens, weights.stop), abs=1e-5)
    assert found.captions == model.vocabulary.sentences(found.tokens)


@pytest.mark.parametrize("weight", [0, WEIGHT])
@pytest.mark.parametrize("rows", [1024, 12])
def test_the_beam_is_the_oracles_however_many_units_are_searched_at_once(case, weight, rows, monkeypatch):
    model, weights, v = case
    monkeypatch.setattr(search, "_ROWS", rows)
    found = model(v, "beam", pmi=bool(weight)).beams
    lengths = set()
    for i, one in enumerate(v):
        kept = oracle.beam(weights, one.double().numpy(), WIDTH, LENGTH, weight)
        exactly(found.tokens[i], [tokens for tokens, _ in kept], weights.stop)
        np.testing.assert_allclose(found.scores[i], [score for _, score in kept], atol=1e-5)
        lengths |= {len(oracle.until_stop(tokens, weights.stop)) for tokens, _ in kept}
    assert len(lengths) > 2  # captions that end early and late have met


@pytest.mark.parametrize("published", [False, True])
def test_rerank_is_brute_force_scoring_of_the_beam(case, published):
    model, weights, v = case
    found = model(v, published_lm_score=published)
    for i, one in enumerate(v):
        kept = oracle.beam(weights, one.double().numpy(), WIDTH, LENGTH)
        longest = found.tokens.shape[1]
        kept = [(tokens + [weights.stop] * (longest - len(tokens)), score) for tokens, score in kept]
        scores = oracle.rerank(weights, kept, WEIGHT, published)
        assert found.tokens[i].tolist() == kept[int(np.argmax(scores))][0]
        np.testing.assert_allclose(found.beams.scores[i], sorted(scores, reverse=True), atol=1e-5)
        assert found.scores[i] == found.beams.scores[i, 0]


def test_the_published_score_favours_captions_that_end_early(case):
    model, _, v = case
    right, published = model(v).beams, model(v, published_lm_score=True).beams
    assert (published.scores.amax(1) >= right.scores.amax(1) - 1e-6).all()
    assert not torch.allclose(published.scores, right.scores)


def test_the_whole_beam_is_every_caption(case):
    model, weights, v = case
    n = model.vocabulary.specials.size
    found = model(v[:1], "beam", pmi=False, beam_size=n, length=2).beams
    one = v[0].double().numpy()
    scores = []
    for first in range(n):
        each, _ = oracle.follow(weights, one, [first, 0])
        scores += [each[0][first]] if first == weights.stop else [each[0][first] + p for p in each[1]]
    np.testing.assert_allclose(found.scores[0], sorted(scores, reverse=True)[:n], atol=1e-5)


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 5), st.integers(1, 70), st.integers(1, 6))
def test_the_best_continuations_are_found_among_all(seed, units, captions, n, width):
    chance = torch.Generator().manual_seed(seed)
    totals = torch.randn(units, captions, generator=chance)
    going = torch.rand(units, captions, generator=chance) < 0.7
    going[:, 0] = True
    width = min(width, n)
    scores = torch.randn(int(going.sum()), n, generator=chance)
    row = (going.flatten().cumsum(0) - 1).view(going.shape)
    best, caption, word = search._best(totals, going, scores, row, width, n)
    for u in range(units):
        every = {(b, n): totals[u, b] for b in range(captions) if not going[u, b]}
        every |= {(b, w): totals[u, b] + scores[row[u, b], w] for b in range(captions) if going[u, b] for w in range(n)}
        expected = sorted(every, key=lambda one: -every[one])[:width]
        assert list(zip(caption[u].tolist(), word[u].tolist(), strict=True)) == expected
        assert best[u].tolist() == [every[one].item() for one in expected]


def test_a_beam_of_one_is_greedy(case):
    model, _, v = case
    assert model(v, "beam", beam_size=1).captions == model(v, "greedy").captions


def test_a_search_ends_when_all_have_stopped():
    model = captioner(published_state(stop=60.0), length=15)
    assert model(features(), "greedy").tokens.tolist() == [[15]] * 3
    assert model(features(), "greedy").captions == ("", "", "")
    assert model(features(), "beam", pmi=False, beam_size=1).tokens.shape == (3, 1)
    assert model(features(), "beam", pmi=False, beam_size=6).tokens.shape[1] < 15


def test_samples_follow_the_probabilities(case):
    model, weights, v = case
    many = v[:1].expand(4000, -1, -1)
    first = model(many, "sample", pmi=True, length=1, generator=torch.Generator().manual_seed(0)).tokens[:, 0]
    scores = oracle.weigh(weights, v[0].double().numpy(), [0], WEIGHT)[0]
    frequency = torch.bincount(first, minlength=len(scores)) / 4000
    np.testing.assert_allclose(frequency, oracle.softmax(scores), atol=0.03)
    again = model(many, "sample", pmi=True, length=1, generator=torch.Generator().manual_seed(0)).tokens[:, 0]
    assert torch.equal(first, again)


def test_captions_are_scored_for_one_unit_or_each_for_its_own(case):
    model, weights, v = case
    texts = ["the red dog", "a zebra", "", "green - striped cats , cats . the dog"]
    ids = model.vocabulary.index(texts).tolist()
    for which, v_of in ((v[:4], lambda i: v[i]), (v[:1], lambda i: v[0])):
        for pmi, weight in ((False, 0), (True, WEIGHT), (None, WEIGHT)):
            found = model.score(texts, which, pmi=pmi)
            for i, tokens in enumerate(ids):
                each = oracle.weigh(weights, v_of(i).double().numpy(), tokens, weight)
                assert found[i].item() == pytest.approx(oracle.score(each, tokens, 15), abs=1e-5)


def test_a_text_of_unknown_words_is_scored_as_such(case):
    model, weights, v = case
    unknown = model.vocabulary.specials.unknown
    assert model.vocabulary.index(["zebra xylophone"]).tolist() == [[unknown, unknown, unknown - 2]]
    found = model.score(["zebra xylophone", "quagga yak", " "], v[:1], pmi=False)
    each = oracle.weigh(weights, v[0].double().numpy(), [unknown, unknown, unknown - 2], 0)
    assert found[0].item() == found[1].item() == pytest.approx(oracle.score(each, [unknown, unknown, 15], 15), abs=1e-5)
    assert found.isfinite().all()


def test_what_is_written_scores_as_it_was_written(case):
    model, _, v = case
    found = model(v, "greedy", pmi=False, length=60)
    ended = [" ".join(WORDS[i] for i in row if i < len(WORDS)) for row in found.tokens.tolist()]
    plain = [i for i, row in enumerate(found.tokens.tolist()) if max(row) <= 15]
    scores = model.score(ended, v, pmi=False)
    assert plain
    for i in plain:
        if model.vocabulary.index([ended[i]])[0].tolist() == found.tokens[i, : len(ended[i].split()) + 1].tolist():
            assert scores[i].item() == pytest.approx(found.scores[i].item(), abs=1e-4)


def test_training_mode_writes_the_same(case):
    model, _, v = case
    expected = model(v).captions
    model.train()
    assert model(v).captions == expected
    model.eval()


def test_without_a_language_model_the_beam_is_the_default():
    model = captioner(published_state(lm=False), beam_size=3)
    assert model.strategy == "beam"
    assert len(model(features()).captions) == 3
    with pytest.raises(UserError, match="rerank needs a language model"):
        model(features(), "rerank")
    with pytest.raises(UserError, match="pmi needs a language model"):
        model(features(), "greedy", pmi=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "bean"}, "no strategy `bean`. Nearest: beam"),
        ({"strategy": "rerank", "pmi": True}, "rerank weighs whole captions by PMI already"),
        ({"strategy": "beam", "beam_size": 19}, "beam is 19 wide; it can be 1 to 18"),
        ({"strategy": "greedy", "length": 0}, "length is 0"),
    ],
)
def test_what_cannot_be_done_is_said(case, options, message):
    model, _, v = case
    with pytest.raises(UserError, match=message):
        model(v, **options)


@pytest.mark.parametrize("strategy", ["greedy", "sample", "beam", "rerank"])
def test_no_units_and_one_exemplar_are_no_trouble(case, strategy):
    model, _, v = case
    assert model(v[:0], strategy).captions == ()
    assert len(model(v[:2, :1], strategy).captions) == 2


def test_bad_features_are_named(case):
    model, _, v = case
    broken = v.clone()
    broken[3, 0, 0] = float("nan")
    with pytest.raises(UserError, match="features of unit 3"):
        model(broken)
    with pytest.raises(UserError, match="2 captions and 5 units"):
        model.score(["a dog", "a cat"], v)


def test_parts_of_different_vocabularies_do_not_join():
    with pytest.raises(UserError, match="Decoder has 14 words and the vocabulary 2"):
        Captioner(Vocabulary(("a", "b")), Decoder(14, 10, 6, 8))


def test_equal_scores_keep_their_order(case):
    model, _, _ = case
    from neuronx.methods.milan.captioner import rerank

    tokens = torch.tensor([[[0, 15], [1, 15], [2, 15]]])
    beams = Beams(tokens, torch.zeros(1, 3))
    assert torch.equal(rerank(beams, model.language_model, 0.0).tokens, tokens)
