import math

import pytest
import torch

from neuronx.errors import UserError
from neuronx.methods.milan.language_model import LanguageModel
from neuronx.methods.milan.losses import language_model_loss
from neuronx.methods.milan.perplexity import perplexity, unigram_perplexity
from neuronx.methods.milan.vocabulary import Vocabulary
from neuronx.milannotations import read_descriptions


def model(words, **options):
    torch.manual_seed(0)
    return LanguageModel(words, **{"embedding_size": 16, "hidden_size": 16, **options})


def test_a_model_that_knows_nothing_is_as_unsure_as_there_are_tokens():
    vocabulary = Vocabulary.build(["red dots on grass"])
    blank = model(4)
    torch.nn.init.zeros_(blank.output.weight)
    torch.nn.init.zeros_(blank.output.bias)
    assert perplexity(blank, vocabulary, ["red dots", "unheard of"]) == pytest.approx(8)


def test_perplexity_is_that_of_the_scores_and_leaves_the_model_as_it_was():
    texts = ["red dots on grass", "grass", "blue grass on red dots and blue"]
    vocabulary = Vocabulary.build(texts[:2])
    lm = model(len(vocabulary.words)).train()
    found = perplexity(lm, vocabulary, texts)
    assert lm.training
    scores = [lm.eval().score(vocabulary.index([text])).item() for text in texts]
    assert found == pytest.approx(math.exp(-sum(scores) / (5 + 2 + 8)), rel=1e-5)


def test_unigrams_are_counts_plus_one():
    vocabulary = Vocabulary(("a", "b"))
    # a a stop | b stop: 5 tokens, and a, b, stop, unknown once more each.
    found = unigram_perplexity(vocabulary, ["a a", "b"], ["a", "c"])
    assert found == pytest.approx((3 / 9 * 3 / 9 * 1 / 9 * 3 / 9) ** (-1 / 4))


def test_nothing_to_measure_is_said():
    vocabulary = Vocabulary(("a", "b"))
    with pytest.raises(UserError, match="none"):
        perplexity(model(2), vocabulary, [])
    with pytest.raises(UserError, match="belong together"):
        perplexity(model(3), vocabulary, ["a"])
    with pytest.raises(UserError, match="none"):
        unigram_perplexity(vocabulary, ["a"], [])


@pytest.mark.slow
def test_trained_on_real_descriptions_it_has_half_of_a_unigrams_perplexity(shared):
    path = shared / "data" / "published" / "milannotations" / "resnet152_imagenet.csv"
    units = list(read_descriptions(path).values())
    order = torch.randperm(len(units), generator=torch.Generator().manual_seed(0)).tolist()
    cut = len(units) // 10
    held_out, training = ([text for i in part for text in units[i]] for part in (order[:cut], order[cut:]))
    vocabulary = Vocabulary.build(training)
    torch.manual_seed(0)
    lm = LanguageModel(len(vocabulary.words))
    optimizer = torch.optim.AdamW(lm.parameters(), lr=2e-3)
    training = sorted(training, key=len)
    batches = [vocabulary.index(training[i : i + 64]) for i in range(0, len(training), 64)]
    epochs = 5
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, epochs * len(batches))
    for _ in range(epochs):
        for i in torch.randperm(len(batches)).tolist():
            loss = language_model_loss(lm, batches[i])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    mine, counted = perplexity(lm, vocabulary, held_out), unigram_perplexity(vocabulary, training, held_out)
    print(f"perplexity {mine:.1f}, of a unigram {counted:.1f}")
    assert mine <= counted / 2
