"""MILAN as a method: each unit is described by a sentence, written from what it fires on (Hernandez et al., 2022)."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronx.concepts.clip import Clip
from neuronx.concepts.formula import quoted
from neuronx.concepts.masked_clip import MaskedClip
from neuronx.errors import Unsuitable, UserError, unknown
from neuronx.methods.milan.captioner import Captioner
from neuronx.methods.milan.choosing import most_similar
from neuronx.methods.milan.describer import Describer, chooses, encoder_of, is_published, load
from neuronx.methods.milan.features import Captioned, Notes, Subject, encode, written
from neuronx.methods.milan.published import CLIP
from neuronx.options import Count, NotNegative, Share
from neuronx.recording.exemplars import Exemplars, find_exemplars, gather
from neuronx.recording.maps import masks
from neuronx.recording.pictures import View, view
from neuronx.store.cache import digest
from neuronx.targets.identity import module_digest, transform_digest
from neuronx.types import Explanation, Plain, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

log = logging.getLogger(__name__)

SIDE = 224
"""Of exemplars for an encoder that takes pictures of any size, as published."""


@dataclass(eq=False)
class ExemplarSource:
    """Pictures as the network sees them, without normalisation, and where its units fire in them.

    Attributes:
        exemplars: Of a layer.
        units: (U,) int64, the units that are asked for.
        target: The network.
        probe: The images.
        size: Side of pictures and masks.
        maps: (U, k, h, w), filled by `prepare`; none of a layer without positions, whose masks are whole images.
    """

    exemplars: "Exemplars"
    units: Tensor
    target: "Target"
    probe: "Probe"
    size: int
    maps: Tensor | None = field(default=None, repr=False)

    @property
    def key(self) -> Plain:
        """Everything that decides the pictures and the masks of these units."""
        content = hashlib.sha256()
        for part in (self.exemplars.rows[self.units], self.exemplars.thresholds[self.units], self.units):
            content.update(part.contiguous().numpy().tobytes())
        return {
            "network": self.target.digest,
            "prefix": self.target.prefix_tokens,
            "layer": self.exemplars.layer,
            "images": self.probe.fingerprint,
            "view": repr(self.view),
            "transform": transform_digest(self.target.transform),
            "exemplars": content.hexdigest(),
            "centres": repr(self.exemplars.centres),
        }

    @property
    def count(self) -> int:
        """Number of units."""
        return len(self.units)

    @property
    def view(self) -> View:
        """How pictures are shown."""
        return view(self.target.transform, self.size)

    @property
    def fires(self) -> Tensor:
        """(U,) bool, whether a unit is above its threshold anywhere; if not, all of its masks are empty."""
        return self.exemplars.peaks[self.units].amax(1) > self.exemplars.thresholds[self.units]

    def pictures(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images (B, k, 3, S, S) and masks (B, k, 1, S, S), both uint8, of some of the units."""
        some = torch.tensor(list(rows), dtype=torch.int64)
        wanted, place = self.exemplars.rows[self.units[some]].unique(return_inverse=True)
        loaded, shown = self.probe.load(wanted.tolist()), self.view
        images = shown(loaded) if isinstance(loaded, Tensor) else torch.stack([shown(image) for image in loaded])
        if self.maps is None:
            return images[place], torch.ones(*place.shape, 1, self.size, self.size, dtype=torch.uint8)
        thresholds = self.exemplars.thresholds[self.units[some]]
        # A threshold for each unit, which `masks` looks for on the second axis.
        size, centres = (self.size, self.size), self.exemplars.centres
        cut = masks(self.maps[some].transpose(0, 1), thresholds, size, centres).transpose(0, 1)
        return images[place], cut.unsqueeze(2).byte()


def prepare(sources: Sequence[ExemplarSource], trainer: TrainerFactory) -> None:
    """Records the network's maps on the exemplars of several layers, in one pass; every process gets all of them."""
    if not sources:
        return
    exemplars = {source.exemplars.layer: source.exemplars for source in sources}
    units = {source.exemplars.layer: source.units for source in sources}
    maps, _ = gather(exemplars, units, sources[0].target, sources[0].probe, trainer)
    for source in sources:
        source.maps = maps.get(source.exemplars.layer)


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
        k: Count = 15,
        quantile: Share = 0.99,
        by: str = "peak",
        strategy: str | None = None,
        pmi: bool | None = None,
        temperature: NotNegative | None = None,
        beam_size: Count | None = None,
        length: Count | None = None,
        rerank: str | None = None,
        masked: Share | bool = False,
        clip: "Clip | None" = None,
    ) -> None:
        """Chooses a captioner and how it writes; what is None is as it was trained or published.

        Args:
            weights: As `neuronx.milan.load` takes them: a shipped name, a file, or `published`.
            key: Which of the published captioners.
            encoder: In place of the captioner's own.
            published_masks: As in `RegionEncoder`.
            k: Exemplars of each unit.
            quantile: Of a unit's activations, above which it fires.
            by: What ranks the exemplars: the unit's `peak`, as published, or its activation as the layer is pooled
                (`pool`), which is explained by other methods and scored.
            strategy: greedy, sample, beam or rerank.
            pmi: Whether single words are weighed against the language model.
            temperature: Weight of the language model, lambda.
            beam_size: Captions that are chosen from.
            length: Tokens of a caption at most, its stop included.
            rerank: `clip` chooses among the beam the caption that is most similar to the exemplars.
            masked: Of that similarity, the share of what the CLIP sees within the masks (`MaskedClip`): 0 or False
                compares with whole exemplars, 1 or True with the masked parts only.
            clip: Who says what is similar.
        """
        if rerank not in (None, "clip"):
            raise unknown("way to rerank", str(rerank), ["clip"], "Or leave milan.rerank out.")
        if rerank == "clip" and clip is None:
            raise UserError("milan.rerank=clip needs a CLIP: choose one with clip=.")
        if rerank == "clip" and strategy not in (None, "beam", "rerank"):
            raise UserError(f"milan.rerank=clip chooses among a beam, and strategy={strategy} makes none.")
        if not 0 <= masked <= 1 or (masked and rerank is None):
            raise UserError(
                f"milan.masked={masked}: the share of what a CLIP sees within masks, 0 to 1, for milan.rerank=clip."
            )
        self.weights, self.key, self.encoder, self.published_masks = weights, key, encoder, published_masks
        self.k, self.quantile, self.by, self.masked = k, quantile, by, float(masked)
        chosen = isinstance(weights, str) and chooses(weights, key)
        self.clip = clip if rerank == "clip" else Clip(*CLIP) if chosen else None
        given = {"strategy": strategy, "pmi": pmi, "temperature": temperature, "beam_size": beam_size, "length": length}
        self.options = {name: value for name, value in given.items() if value is not None}
        if self.clip is not None:
            self.options.setdefault("strategy", "beam")

    @cached_property
    def describer(self) -> Describer:
        """The captioner with its encoder, loaded when first needed."""
        if isinstance(self.weights, Describer):
            return self.weights
        return load(self.weights, self.key, self.encoder, self.published_masks)

    @property
    def encoders(self) -> tuple[str, ...]:
        """Digests of the CLIPs that it sees through or reranks by; published captioners see through none."""
        if self.encoder is not None:
            own = encoder_of(self.encoder).clip
        else:
            own = "" if is_published(self.weights) else self.describer.encoder.clip
        return tuple(filter(None, (own, *(() if self.clip is None else self.clip.encoders))))

    def check(self, probe: "Probe") -> None:
        """Raises Unsuitable where the captioner knows pictures of another kind.

        It can describe others nevertheless, in the words of its own kind, and `explain` does.
        """
        if self.describer.domain not in ("", probe.domain):
            raise Unsuitable(
                f"The captioner {self.describer.name} knows {self.describer.domain} pictures, and those of "
                f"`{probe.name}` are {probe.domain}: set milan.weights=published or FILE."
            )

    def explain(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> list[Explanation]:
        """Describes the units asked for, from the train and val images.

        Raises:
            UserError: No captioner of that name, or as `find_exemplars`.
        """
        try:
            self.check(probe)
        except Unsuitable as reason:
            log.warning("%s Its words are about the pictures that it knows.", reason)
        size = self.describer.encoder.side or SIDE
        # A class token is about no place: its exemplars count as a whole.
        found = find_exemplars(target, probe, trainer, k=self.k, quantile=self.quantile, by=self.by)
        sources = [
            ExemplarSource(
                exemplars, torch.tensor(target.units_of(layer, len(exemplars.units))).long(), target, probe, size
            )
            for layer, exemplars in found.items()
        ]
        # Units that never fire are left out: their masks are empty, and there is nothing to describe.
        fire = [source.fires.nonzero().squeeze(1) for source in sources]
        places = torch.cat([torch.stack([torch.full_like(rows, at), rows], 1) for at, rows in enumerate(fire)])
        features = encode(sources, places, self.describer.encoder, trainer, prepare=_preparing(sources, trainer))
        similar = self._clip_features(sources, places, probe, trainer)

        def write(captioner: Captioner, units: Tensor) -> list[Captioned]:
            captions = replace(self.describer, captioner=captioner).write(features[units], **self.options)
            if self.clip is None or similar is None:
                scores = captions.scores.tolist()
                return [(text, (("score", score),)) for text, score in zip(captions.captions, scores, strict=True)]
            best, cosines = most_similar(captions, captioner, self.clip, similar(units))
            told = zip(best.captions, best.scores.tolist(), cosines.tolist(), strict=True)
            return [(text, (("score", score), ("clip", cosine))) for text, score, cosine in told]

        starts = torch.tensor([0, *map(len, fire)]).cumsum(0).tolist()
        subjects = [
            Subject(place.key, torch.arange(*part))
            for place, part in zip(features.entries, pairwise(starts), strict=True)
        ]
        texts = written(subjects, self.describer.captioner, self._how, write, trainer)
        explanations, made_by = [], self.encoders
        for source, rows, told in zip(sources, fire, texts, strict=True):
            captions = dict(zip(rows.tolist(), told, strict=True))
            for row in range(source.count):
                explanation = _explanation(source, row, *captions.get(row, ("", ())))
                explanations.append(replace(explanation, made_by=made_by))
        return explanations

    @property
    def _how(self) -> dict[str, Plain]:
        """All that decides a caption beside the features."""
        captioner = self.describer.captioner
        usual = {name: getattr(captioner, name) for name in ("strategy", "temperature", "beam_size", "length")}
        clip = None if self.clip is None else [self.clip.digest, self.masked]
        return {
            "captioner": module_digest(captioner),
            "words": digest(list(captioner.vocabulary.words)),
            "published": self.describer.published,
            "options": usual | self.options,
            "clip": clip,
        }

    def _clip_features(
        self, sources: Sequence[ExemplarSource], places: Tensor, probe: "Probe", trainer: TrainerFactory
    ) -> Callable[[Tensor], Tensor] | None:
        """From units (n,) to the embeddings of their exemplars (n, k, E) by the reranking CLIP; None without one."""
        if self.clip is None:
            return None
        whole = self.clip.embed_images(probe, trainer)
        rows = torch.cat([source.exemplars.rows[source.units] for source in sources])
        starts = torch.tensor([0, *(source.count for source in sources)]).cumsum(0)
        rows = rows[starts[places[:, 0]] + places[:, 1]]
        if not self.masked:
            return lambda units: whole[rows[units]]
        masks = MaskedClip(self.clip.encoder.image_target(self.clip.name), self.describer.encoder.published_masks)
        parts = encode(sources, places, masks, trainer, prepare=_preparing(sources, trainer))
        return lambda units: torch.lerp(whole[rows[units]], parts[units], self.masked)


def _preparing(sources: Sequence[ExemplarSource], trainer: TrainerFactory) -> Callable[[Sequence[int]], None]:
    """Prepares some of the sources, those that are not yet."""
    return lambda missing: prepare([sources[at] for at in missing if sources[at].maps is None], trainer)


def _explanation(source: ExemplarSource, row: int, text: str, notes: Notes) -> Explanation:
    column = int(source.units[row])
    unit = source.exemplars.units[column]
    if not text:
        return Explanation(unit, ())
    evidence = tuple(source.exemplars.rows[column].tolist())
    return Explanation(unit, ((quoted(text), 1.0),), evidence=evidence, notes=notes)
