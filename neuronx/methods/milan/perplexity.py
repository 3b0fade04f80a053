"""How well a language model foresees descriptions that it has not seen, and how well word counts alone would."""

import math
from collections import Counter
from collections.abc import Sequence

import torch

from neuronx.errors import UserError
from neuronx.methods.milan.language_model import LanguageModel
from neuronx.methods.milan.vocabulary import Vocabulary

BATCH = 256


@torch.no_grad()
def perplexity(model: LanguageModel, vocabulary: Vocabulary, texts: Sequence[str]) -> float:
    """Returns exp of the mean of -log p over each text's words and stop; words without an id count as `unknown`.

    Dropout is off meanwhile. Between 1 and infinity, smaller is better; a uniform guess has V + 4.

    Raises:
        UserError: No texts, or a vocabulary of another size.
    """
    if not texts:
        raise UserError("A perplexity is that of some texts; there are none.")
    if model.specials != vocabulary.specials:
        raise UserError(
            f"The language model has {model.specials.start} words, its vocabulary {len(vocabulary.words)}: they do not "
            "belong together."
        )
    training, device = model.training, next(model.parameters()).device
    model.eval()
    total, tokens = 0.0, 0
    # Texts of like length share a batch, so that there is little padding.
    by_length = sorted(texts, key=len)
    for start in range(0, len(by_length), BATCH):
        ids = vocabulary.index(by_length[start : start + BATCH]).to(device)
        real = ids != vocabulary.specials.pad
        logits = model.predict(model(ids)[real])
        total += torch.nn.functional.cross_entropy(logits, ids[real], reduction="sum").item()
        tokens += int(real.sum())
    model.train(training)
    return math.exp(total / tokens)


def unigram_perplexity(vocabulary: Vocabulary, training: Sequence[str], held_out: Sequence[str]) -> float:
    """The same for a model that knows only how frequent each word, the stop and `unknown` are in the training texts.

    Add-one smoothing: p = (count + 1) / (tokens + V + 2).
    """
    if not held_out:
        raise UserError("A perplexity is that of some texts; there are none.")
    specials = vocabulary.specials
    counts = Counter(_ids(vocabulary, training))
    total = sum(counts.values()) + len(vocabulary.words) + 2
    seen = [token for token in _ids(vocabulary, held_out) if token != specials.pad]
    return math.exp(-sum(math.log((counts[token] + 1) / total) for token in seen) / len(seen))


def _ids(vocabulary: Vocabulary, texts: Sequence[str]) -> list[int]:
    ids = vocabulary.index(texts)
    return ids[ids != vocabulary.specials.pad].tolist()
