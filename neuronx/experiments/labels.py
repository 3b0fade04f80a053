"""Labels against sentences: what other methods call units, held against what people said of them.

The baselines of MILAN (Hernandez et al., 2022), table 2: Network Dissection's labels and compositional formulas beside
captions by likelihood and by PMI, on a network that no captioner saw in training.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from neuronx.concepts.formula import Formula, parse
from neuronx.concepts.labels import spoken
from neuronx.errors import UserError
from neuronx.experiments.generalisation import Captions, Outcome
from neuronx.experiments.splits import Split
from neuronx.metrics.bert_score import BertScore
from neuronx.metrics.captions import score_captions
from neuronx.types import Explanation, Unit

if TYPE_CHECKING:
    from neuronx.milannotations.dataset import Milannotations


def as_caption(label: str) -> str:
    """A label or formula in words: `water OR (river-s AND NOT blue_sky)` is "water or river and not blue sky".

    "_" is a space, and the part of a Broden label after its last hyphen, its kind (`street-s`), is left out.
    """
    return _words(parse(label))


def _words(formula: Formula) -> str:
    if not formula.operator:
        name, hyphen, kind = formula.atom.rpartition("-")
        return spoken(name if hyphen and len(kind) == 1 else formula.atom)
    texts = [_words(part) for part in formula.parts]
    return f"not {texts[0]}" if formula.operator == "NOT" else f" {formula.operator.lower()} ".join(texts)


def captions_of(
    explanations: Sequence[Explanation], units: "Milannotations", positions: Sequence[int], model: str | None = None
) -> list[str]:
    """What a method's explanations say of some units, in words; "" where it says nothing.

    Args:
        explanations: Of any units of the network; of several for one unit, or of one with several terms, the first.
        units: All units.
        positions: Which of them are asked for.
        model: Whose units the explanations are of; all positions must be of one model when None.

    Raises:
        UserError: Units of several models, or explanations of none of them.
    """
    models = {units.model(i) for i in positions} if model is None else {model}
    if len(models) > 1:
        raise UserError(f"The explanations are of one network, the units of {', '.join(sorted(models))}: say which.")
    said: dict[Unit, str] = {}
    for one in explanations:
        if one.terms:
            said.setdefault(Unit(one.unit.layer, one.unit.index), as_caption(one.terms[0][0]))
    texts = [said.get(units.unit(i), "") if units.model(i) in models else "" for i in positions]
    if not any(texts):
        some = ", ".join(str(units.unit(i)) for i in positions[:3])
        raise UserError(f"None of the units ({some}, ...) of {', '.join(models)} is explained; are layers named alike?")
    return texts


def compare_labels(
    units: "Milannotations",
    split: Split,
    captions: Captions,
    explained: Mapping[str, Sequence[Explanation]],
    *,
    trial: int = 0,
    bert: BertScore | None = None,
) -> list[Outcome]:
    """Scores captions and other methods' explanations of the same units against what people said of them.

    Args:
        units: All units.
        split: What the captioner was trained on and is tested on: one network left out.
        captions: Way of writing (`pmi`, `likelihood`) -> captions of `split.testing`.
        explained: Method -> its explanations of the network.
        trial: Of the captioner.
        bert: To score by BERTScore too.

    Returns:
        Outcomes of the captions, then of the methods; put `baselines` of the split beside them.
    """
    said = [units.annotations[i] for i in split.testing]
    rows = {**captions, **{name: captions_of(found, units, split.testing) for name, found in explained.items()}}
    return [
        Outcome(split, name, trial, score_captions(texts, said, bert), tuple(texts)) for name, texts in rows.items()
    ]
