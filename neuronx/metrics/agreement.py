"""How far people agree on what a unit does: each description is held against the others of its unit."""

import torch

from neuronx.errors import UserError
from neuronx.metrics.bert_score import BertScore
from neuronx.metrics.captions import CaptionScores, References, score_captions
from neuronx.metrics.constants import constant_captions


def agreement(descriptions: References, *, bert: BertScore | None = None, seed: int = 0) -> dict[str, CaptionScores]:
    """Leaves one person out: scores what they said of a unit against what the others said, for every person and unit.

    Beside it, against the same references, a constant caption and what people said of other units. The better constant
    is chosen among all descriptions of the same units, which is to its advantage.

    Args:
        descriptions: Of each unit; units with fewer than two descriptions say nothing about agreement.
        bert: As in `score_captions`.
        seed: Which other unit a description is taken from.

    Returns:
        Name -> scores; `people` first.

    Raises:
        UserError: No unit has two descriptions.
    """
    several = [tuple(given) for given in descriptions if len(given) > 1]
    if not several:
        raise UserError("No unit was described twice, so it is unknown how far people agree.")
    said = [text for given in several for text in given]
    others = [given[:i] + given[i + 1 :] for given in several for i in range(len(given))]
    # A random cycle through the units: everyone's place is taken by another's.
    order = torch.randperm(len(several), generator=torch.Generator().manual_seed(seed)).tolist()
    after = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    elsewhere = [
        several[after[u]][i % len(several[after[u]])] for u, given in enumerate(several) for i in range(len(given))
    ]
    rows = {"people": said}
    rows |= {name: [text] * len(said) for name, text in constant_captions(said, others).items()}
    if len(several) > 1:
        rows["people, of another unit"] = elsewhere
    return {name: score_captions(texts, others, bert) for name, texts in rows.items()}
