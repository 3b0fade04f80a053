"""How like people's descriptions captions are: BLEU, ROUGE and BERTScore against several references for each unit.

torchmetrics counts words. As in MILAN (Hernandez et al., 2022) both sides are put into lower case and lose the full
stops and spaces at their ends; words are those of mteval-v13a, the tokens that published BLEU scores are of. Units may
have any number of references each, and one without any is left out.

Text similarity is easily misled: one constant word beats every published method on MILANNOTATIONS under some of these
scores. Never show them without `neuronx.metrics.constants`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.metrics.bert_score import BertScore

ORDER = 4
"""Longest run of words that BLEU counts."""

References = Sequence[Sequence[str]]
"""For each unit what people said of it."""


@dataclass(frozen=True)
class CaptionScores:
    """Scores of the captions of many units, each in [0, 1] and larger for more alike; BERTScore may be below 0.

    Attributes:
        n: Number of captions.
        bleu: BLEU-1 to BLEU-4 of the corpus: the geometric mean of the precisions of runs of 1 to n words, times the
            penalty for being shorter than the closest references (Papineni et al., 2002); 0 where no run matches.
        rouge1: Mean F score of single words over all pairs of a caption and one of its references (Lin, 2004).
        rouge2: Of pairs of words.
        rougel: Of the longest common subsequence.
        bert: Mean over captions of the best F score of BERTScore (Zhang et al., 2020); NaN where not asked for.
    """

    n: int
    bleu: tuple[float, float, float, float]
    rouge1: float
    rouge2: float
    rougel: float
    bert: float = math.nan


def score_captions(captions: Sequence[str], references: References, bert: BertScore | None = None) -> CaptionScores:
    """Scores one caption for each unit.

    Args:
        captions: Of U units.
        references: Of the same units.
        bert: Scores by BERTScore too; slow.

    Raises:
        UserError: Other numbers of captions and units, or no unit that has a reference.
    """
    said, known = described(captions, references)
    one, two, longest = rouge(said, known)
    return CaptionScores(
        n=len(said),
        bleu=bleu(said, known),
        rouge1=one,
        rouge2=two,
        rougel=longest,
        bert=math.nan if bert is None else float(bert(said, known).mean()),
    )


def described(captions: Sequence[str], references: References) -> tuple[list[str], list[list[str]]]:
    """Captions and references of the units that have references, normalised; raises as `score_captions`."""
    if len(captions) != len(references):
        raise UserError(f"There are {len(captions)} captions for the descriptions of {len(references)} units.")
    kept = [(normalised(text), [*map(normalised, given)]) for text, given in zip(captions, references, strict=True)]
    kept = [(text, given) for text, given in kept if given]
    if not kept:
        raise UserError("None of the units was described by people, so there is nothing to compare captions with.")
    return [text for text, _ in kept], [given for _, given in kept]


def normalised(text: str) -> str:
    """Lower case, without full stops and spaces at both ends."""
    return text.lower().strip(". ")


_MARKS = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
"""Where mteval-v13a parts words from marks: around most of them, around dots and commas next to no digit, and before
a hyphen that follows a digit. Hyphens between letters and apostrophes join."""


def words(text: str) -> list[str]:
    """The words of a normalised text as BLEU counts them, by mteval-v13a: "cat's, a-b" is cat's , a-b."""
    text = f" {text} "
    for pattern, parted in _MARKS:
        text = pattern.sub(parted, text)
    return text.split()


def bleu(captions: Sequence[str], references: References) -> tuple[float, float, float, float]:
    """BLEU-1 to BLEU-4 of normalised captions; see `CaptionScores`. Of equally close lengths the shorter counts."""
    from torchmetrics.text import BLEUScore

    counts = BLEUScore(ORDER)
    spaced = [[" ".join(text) for text in sorted(map(words, given), key=len)] for given in references]
    counts.update([" ".join(words(text)) for text in captions], spaced)
    return bleu_of(counts.numerator, counts.denominator, float(counts.preds_len), float(counts.target_len))


def bleu_of(matches: Tensor, runs: Tensor, length: float, closest: float) -> tuple[float, float, float, float]:
    """BLEU-1 to BLEU-4 from counts.

    Args:
        matches: (4,) how many runs of 1 to 4 words stand in a reference too, each at most as often as there.
        runs: (4,) how many there are.
        length: Words of all captions.
        closest: Words of the references that are closest to them in length.
    """
    logs = (matches.double() / runs.double().clamp(min=1)).log().cumsum(0) / torch.arange(1, ORDER + 1)
    penalty = 1.0 if length > closest else math.exp(1 - closest / length) if length else 0.0
    one, two, three, four = (penalty * logs.exp()).tolist()
    return one, two, three, four


def rouge(captions: Sequence[str], references: References) -> tuple[float, float, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L: mean F scores over all pairs; see `CaptionScores`."""
    from torchmetrics.functional.text import rouge_score

    keys = ("rouge1", "rouge2", "rougeL")
    pairs = [(text, other) for text, given in zip(captions, references, strict=True) for other in given]
    found = rouge_score([text for text, _ in pairs], [other for _, other in pairs], rouge_keys=keys)
    one, two, longest = (float(found[f"{key}_fmeasure"]) for key in keys)
    return one, two, longest
