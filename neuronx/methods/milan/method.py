"""MILAN as a method: each unit is described by a sentence, written from what it fires on (Hernandez et al., 2022)."""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronx.errors import Unsuitable, UserError, unknown
from neuronx.methods.milan import describer
from neuronx.methods.milan.captioner import Captions
from neuronx.methods.milan.describer import Describer
from neuronx.methods.milan.exemplar_source import ExemplarSource, prepare
from neuronx.methods.milan.features import encode
from neuronx.recording.exemplars import find_exemplars
from neuronx.types import Explanation, TrainerFactory

if TYPE_CHECKING:
    from neuronx.concepts.clip import Clip
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

log = logging.getLogger(__name__)

SIDE = 224
"""Of exemplars for an encoder that takes pictures of any size, as published."""
UNITS = 64
"""Described at a time."""


class Milan:
    """Describes each unit in words of its own (MILAN, ICLR 2022).

    An explanation's one term is the caption, with weight 1; its note is the `score` that the strategy gave it, and with
    a CLIP `clip`, the mean cosine of the caption and the exemplars; its evidence the exemplars, images of train and
    val. A unit that never exceeds its own threshold, or whose caption is empty, has no terms.
    """

    def __init__(
        self,
        weights: str | Path | Describer = "milan_base",
        key: str = "base",
        encoder: Any = None,
        published_masks: bool | None = None,
        k: int = 15,
        quantile: float = 0.99,
        strategy: str | None = None,
        pmi: bool | None = None,
        temperature: float | None = None,
        beam_size: int | None = None,
        length: int | None = None,
        rerank: str | None = None,
        clip: "Clip | None" = None,
    ) -> None:
        """Chooses a captioner and how it writes; what is None is as it was trained or published.

        Args:
            weights: As `describer.load` takes them: a shipped name, a file, or `published`.
            key: Which of the published captioners.
            encoder: In place of the captioner's own.
            published_masks: As in `Encoder`.
            k: Exemplars of each unit.
            quantile: Of a unit's activations, above which it fires.
            strategy: greedy, sample, beam or rerank.
            pmi: Whether single words are weighed against the language model.
            temperature: Weight of the language model, lambda.
            beam_size: Captions that are chosen from.
            length: Tokens of a caption at most, its stop included.
            rerank: `clip` chooses among the beam the caption that is most similar to the exemplars.
            clip: Who says what is similar.
        """
        if rerank not in (None, "clip"):
            raise unknown("way to rerank", str(rerank), ["clip"], "Or leave milan.rerank out.")
        if rerank == "clip" and clip is None:
            raise UserError("milan.rerank=clip needs a CLIP: choose one with clip=.")
        if rerank == "clip" and strategy not in (None, "beam", "rerank"):
            raise UserError(f"milan.rerank=clip chooses among a beam, and strategy={strategy} makes none.")
        self.weights, self.key, self.encoder, self.published_masks = weights, key, encoder, published_masks
        self.k, self.quantile, self.clip = k, quantile, clip if rerank == "clip" else None
        given = {"strategy": strategy, "pmi": pmi, "temperature": temperature, "beam_size": beam_size, "length": length}
        self.options = {name: value for name, value in given.items() if value is not None}

    @cached_property
    def describer(self) -> Describer:
        """The captioner with its encoder, loaded when first needed."""
        if isinstance(self.weights, Describer):
            return self.weights
        return describer.load(self.weights, self.key, self.encoder, self.published_masks)

    def explain(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> list[Explanation]:
        """Describes the units asked for, from the train and val images.

        Raises:
            Unsuitable: The captioner knows pictures of another domain.
            UserError: No captioner of that name, or as `find_exemplars`.
        """
        if self.describer.domain not in ("", probe.domain):
            raise Unsuitable(
                f"The captioner {self.describer.name} knows {self.describer.domain} pictures and cannot describe units "
                f"by those of `{probe.name}`, which are {probe.domain}: set milan.weights=published or FILE."
            )
        found = find_exemplars(target, probe, trainer, target.layers, k=self.k, quantile=self.quantile)
        size = self.describer.encoder.side or SIDE
        sources = [
            ExemplarSource(one, _units(target, layer, len(one.units)), target, probe, size)
            for layer, one in found.items()
        ]
        # Units that never fire are left out: their masks are empty, and there is nothing to describe.
        places = [
            torch.stack([torch.full_like(rows, at), rows], 1)
            for at, source in enumerate(sources)
            for rows in (source.fires.nonzero().squeeze(1),)
        ]

        def look(missing: Sequence[int]) -> None:
            prepare([sources[at] for at in missing], trainer)

        features = encode(sources, torch.cat(places), self.describer.encoder, trainer, prepare=look)
        device = trainer().strategy.root_device
        self.describer.captioner.to(device)
        described: dict[tuple[int, int], tuple[str, tuple[tuple[str, float], ...]]] = {}
        for some in torch.arange(len(features)).split(UNITS) if len(features) else ():
            rows = features.places[some]
            exemplars = [sources[at].exemplars.rows[sources[at].units[row]] for at, row in rows.tolist()]
            texts, notes = self._write(features[some], torch.stack(exemplars), probe, trainer)
            described |= dict(zip(map(tuple, rows.tolist()), zip(texts, notes, strict=True), strict=True))
        return [
            _explanation(source, row, *described.get((at, row), ("", ())))
            for at, source in enumerate(sources)
            for row in range(source.count)
        ]

    def _write(
        self, features: Tensor, rows: Tensor, probe: "Probe", trainer: TrainerFactory
    ) -> tuple[Sequence[str], list[tuple[tuple[str, float], ...]]]:
        """Captions of some units with their notes, from features (U, k, D) and the exemplars' rows (U, k)."""
        if self.clip is None:
            written = self.describer.write(features, **self.options)
            return written.captions, [(("score", score),) for score in written.scores.tolist()]
        written = self.describer.write(features, **({"strategy": "beam"} | self.options))
        return most_similar(written, self.describer, self.clip, self.clip.embed_images(probe, trainer)[rows])


def most_similar(
    written: Captions, by: Describer, clip: "Clip", images: Tensor
) -> tuple[list[str], list[tuple[tuple[str, float], ...]]]:
    """Of each unit's beam the caption with the largest mean cosine to its exemplars; of equals the first.

    Args:
        written: With beams of W captions.
        by: Who wrote them.
        clip: Whose embeddings are compared.
        images: (U, k, E) unit embeddings of the exemplars.

    Returns:
        Captions, and their notes: the score in the beam, and the mean cosine.
    """
    beams: Any = written.beams
    tokens = beams.tokens
    texts = by.captioner.vocabulary.sentences(tokens.flatten(0, 1))
    distinct = list(dict.fromkeys(texts))
    number = {text: i for i, text in enumerate(distinct)}
    index = torch.tensor([number[text] for text in texts]).view(tokens.shape[:2])
    embedded = clip.embed_texts(distinct, store=False)
    # The mean of cosines is the cosine sum of the mean embedding.
    cosines = (images.float().mean(1) @ embedded.float().T).gather(1, index)
    best = cosines.max(1).indices
    chosen = index.gather(1, best.unsqueeze(1)).squeeze(1).tolist()
    scores = beams.scores.cpu().gather(1, best.unsqueeze(1)).squeeze(1).tolist()
    similar = cosines.gather(1, best.unsqueeze(1)).squeeze(1).tolist()
    notes = [(("score", score), ("clip", cosine)) for score, cosine in zip(scores, similar, strict=True)]
    return [distinct[i] for i in chosen], notes  # type: ignore[return-value]


def _explanation(source: ExemplarSource, row: int, text: str, notes: tuple[tuple[str, float], ...]) -> Explanation:
    unit = source.exemplars.units[int(source.units[row])]
    if not text:
        return Explanation(unit, ())
    evidence = tuple(source.exemplars.rows[unit.index].tolist())
    return Explanation(unit, ((text, 1.0),), evidence=evidence, notes=notes)


def _units(target: "Target", layer: str, total: int) -> Tensor:
    """(U,) int64, the units of a layer that were asked for."""
    wanted = (target.units or {}).get(layer)
    return torch.arange(total) if wanted is None else torch.tensor(wanted, dtype=torch.int64)
