"""`train.py milan=base`: a captioner of units, learned from what people, or the truth, said of others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.methods.milan import describer
from neuronx.methods.milan.captioner import Captioner
from neuronx.methods.milan.describer import encoder_of
from neuronx.methods.milan.features import Features, features_of
from neuronx.methods.milan.networks import Decoder, LanguageModel, Vocabulary
from neuronx.methods.milan.training.annotations import Annotations
from neuronx.methods.milan.training.captioner import DecoderLearning, LanguageModelLearning, learn
from neuronx.methods.milan.training.descriptions import Described, Descriptions, held_out
from neuronx.options import Count, Natural, NotNegative, OpenShare, Positive, Seed, Share
from neuronx.store import checkpoints
from neuronx.types import Plain, TrainerFactory

if TYPE_CHECKING:
    from neuronx.milannotations.dataset import Milannotations

STOPS = ("bleu", "loss")
BEAM = 50
"""Captions that are chosen from, as published; fewer where there are not so many words."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How a captioner is trained. The defaults are the published values, but for `stop` and `standardise`.

    Attributes:
        embedding_size: Of words, in both models.
        hidden_size: Of the LSTMs.
        attention_size: Of the attention; the smaller of 512 and the features' when None.
        dropout: Of both models.
        standardise: Whether the decoder sees features less their mean, by their standard deviation.
        batch_size: Captions in a step of the decoder, of all processes together.
        language_model: Whether there is one.
        language_model_batch_size: Captions in its steps.
        lr: Learning rate of AdamW.
        epochs: At most.
        patience: Training ends after more than so many epochs in a row without a better one.
        stop: What says so for the decoder: the held-out `loss`; or, as published, `bleu` of greedy captions of the
            held-out units, which is 0 or noise where they are few.
        regularization: Weight of the regulariser of the attention.
        hold_out: Share of the units that say when to stop.
        seed: Of initial weights, order, dropout and held-out units.
    """

    embedding_size: Count = 128
    hidden_size: Count = 512
    attention_size: Count | None = None
    dropout: Share = 0.5
    standardise: bool = True
    batch_size: Count = 64
    language_model: bool = True
    language_model_batch_size: Count = 128
    lr: Positive = 1e-3
    epochs: Count = 100
    patience: Natural = 4
    stop: str = "loss"
    regularization: NotNegative = 1.0
    hold_out: OpenShare = 0.1
    seed: Seed = 0

    def fit(
        self,
        features: Features,
        said: Sequence[Sequence[str]],
        trainer: TrainerFactory,
        folder: Path,
        units: Tensor | None = None,
        ckpt_path: str | Path | None = None,
        shown: "Milannotations | None" = None,
    ) -> tuple[Captioner, dict[str, dict[str, Any]]]:
        """Trains a captioner on some units; a part of them is held out, by unit, from both of its models.

        Args:
            features: Of U units.
            said: The descriptions of each.
            trainer: Makes the trainers.
            folder: Gets `language_model.ckpt` and `decoder.ckpt` at the end of every epoch.
            units: (n,) int64, those to learn from and hold out; all when None. The words of the others are not known.
            ckpt_path: The folder of an earlier run with the same settings to go on with, or a checkpoint in it.
            shown: The units, for pictures beside captions in the log.

        Returns:
            The captioner in evaluation mode, on the CPU, with the weights of its best epochs; facts by model.

        Raises:
            UserError: An unknown way to stop, nothing to learn from, a checkpoint that is missing or does not fit.
        """
        if self.stop not in STOPS:
            raise unknown("way to stop", self.stop, STOPS)
        units = torch.arange(len(said)) if units is None else units
        units = units[torch.tensor([bool(said[unit]) for unit in units.tolist()], dtype=torch.bool)]
        if len(units) < 2:
            raise UserError(f"{len(units)} units have descriptions; a captioner needs 2 at least, one held out.")
        train, val = (units[part] for part in held_out(len(units), self.hold_out, self.seed))
        vocabulary = Vocabulary.build(said[unit] for unit in units.tolist())
        described = Described(features, said, train, val, vocabulary)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            captioner = self.new(vocabulary, features.shape[2])
        if self.standardise:
            captioner.decoder.mean, captioner.decoder.deviation = features.scale(train)
        facts = {}
        if captioner.language_model is not None:
            reading = Described(None, said, train, val, vocabulary)
            facts["language model"] = learn(
                LanguageModelLearning(captioner.language_model, self.lr, self.seed),
                Descriptions(reading, self.language_model_batch_size, self.seed),
                trainer,
                folder,
                epochs=self.epochs,
                patience=self.patience,
                ckpt_path=_checkpoint(ckpt_path, "language_model"),
            )
        writer = Captioner(vocabulary, captioner.decoder, length=captioner.length)
        module = DecoderLearning(writer, said, self.lr, self.seed, self.regularization)
        module.units = shown
        facts["decoder"] = learn(
            module,
            Descriptions(described, self.batch_size, self.seed),
            trainer,
            folder,
            self.stop,
            self.epochs,
            self.patience,
            _checkpoint(ckpt_path, "decoder"),
        )
        return captioner.eval().requires_grad_(False), facts

    def new(self, vocabulary: Vocabulary, feature_size: int) -> Captioner:
        """A captioner that has learned nothing, with torch's initial weights."""
        words, sizes = len(vocabulary.words), (self.embedding_size, self.hidden_size)
        decoder = Decoder(words, feature_size, *sizes, self.attention_size, self.dropout)
        language_model = LanguageModel(words, *sizes, dropout=self.dropout) if self.language_model else None
        return Captioner(vocabulary, decoder, language_model, beam_size=min(BEAM, vocabulary.specials.size))


@dataclass(frozen=True, kw_only=True)
class MilanTask(Lesson):
    """Trains, measures and writes one captioner.

    Attributes:
        name: Of the trained part, such as milan_base.
        annotations: Key of the annotated units.
        source: Where they come from.
        encoder: As `encoder_of` takes it: a name, a file or a target; that of the annotations when None.
        taps: Its layers; those that are usual for it when None.
        published_masks: As in `RegionEncoder`.
        test: Share of the units that the captioner is measured on and never sees.
    """

    name: str
    annotations: str
    source: Annotations
    encoder: Any = None
    taps: Sequence[str] | None = None
    published_masks: bool = False
    test: Share = 0.1

    def run(self, trainer: TrainerFactory, folder: Path, ckpt_path: str | None = None) -> Path:
        """Trains and measures the captioner, and writes weights and card into `folder`.

        Returns the path of `<name>.safetensors`. The figures are those of the weights as they are stored.
        """
        from neuronx.store.processes import is_first

        units = self.source.load(self.annotations, trainer)
        encoder = encoder_of(self.encoder or self.source.encoder, self.taps, self.published_masks)
        features = features_of(units, encoder, trainer)
        known, test = held_out(len(units), self.test, self.seed) if self.test else (torch.arange(len(units)), None)
        captioner, facts = self.fit(features, units.annotations, trainer, folder, known, ckpt_path, units)
        captioner.load_state_dict(checkpoints.rounded(captioner.state_dict()))
        truth = self.source.truth(units)
        figures = {} if test is None else measure(captioner, features, units.annotations, test, known, truth)
        card = describer.card(captioner, encoder)
        words = card.pop("words")
        whole: dict[str, Plain] = {
            "about": "A captioner of units: from the images where a unit fires to a sentence (MILAN), trained on "
            f"`{self.annotations}`: {self.source.about(units)}.",
            "command": f"python train.py milan={self.name.removeprefix('milan_')} ship=true",
            "domain": self.source.domain,
            "data": {"annotations": self.annotations, "units": len(units), "test": self.test, "seed": self.seed},
            **card,
            "training": {f"{model}, {fact}": value for model, found in facts.items() for fact, value in found.items()},
            "figures": figures,
            "words": words,
        }
        path = folder / f"{self.name}.safetensors"
        return checkpoints.write(folder, self.name, captioner.state_dict(), whole) if is_first() else path


def measure(
    captioner: Captioner,
    features: Features,
    said: Sequence[Sequence[str]],
    units: Tensor,
    known: Tensor,
    truth: Sequence[Sequence[str]],
) -> dict[str, Any]:
    """Figures on units that were never seen, of several ways to caption them.

    Beside the captioner's own strategy: the most likely captions, by beam and greedily; constant captions for all
    units; the description of the known unit with the most similar features. BLEU is that of single words. Where it is
    known what units answer to: how many captions name it, and the 95 % bootstrap interval over units of by how much the
    captioner's own do so more often.

    Args:
        captioner: With the weights to measure.
        features: Of all units.
        said: The descriptions of all units.
        units: Those never seen.
        known: The others.
        truth: For each of all units the ways to name what it answers to; () where nobody knows.
    """
    from neuronx.metrics.captions import score_captions
    from neuronx.metrics.constants import constant_captions, nearest_units
    from neuronx.metrics.naming import naming

    units, known = (part[torch.tensor([bool(said[unit]) for unit in part.tolist()])] for part in (units, known))
    references, training = ([said[unit] for unit in part.tolist()] for part in (units, known))
    searches: dict[str, dict[str, Any]] = {
        captioner.strategy: {},
        **{f"{search} by likelihood": {"strategy": search, "pmi": False} for search in ("beam", "greedy")},
    }
    ways: dict[str, list[str]] = {
        way: [caption for block in units.split(64) for caption in captioner(features[block], **options).captions]
        for way, options in searches.items()
    }
    own = ways[captioner.strategy]
    nearest = nearest_units(features[units], features[known]).tolist()
    ways["nearest unit"] = [training[place][0] for place in nearest]
    constants = constant_captions((text for given in training for text in given), training)
    ways |= {label: [text] * len(units) for label, text in constants.items()}
    figures: dict[str, Any] = {"units never seen": len(units), "distinct captions": len(set(own))}
    figures |= {f"BLEU-1, {way}": round(score_captions(texts, references).bleu[0], 4) for way, texts in ways.items()}
    wanted = [truth[unit] for unit in units.tolist()]
    if any(wanted):
        found = naming(ways, wanted)
        figures["units of known meaning"] = found[captioner.strategy].n
        figures |= {f"names the meaning, {way}": round(one.share, 4) for way, one in found.items()}
        figures |= {
            f"{captioner.strategy} before {way}, 95 %": [round(one.lead_low, 4), round(one.lead_high, 4)]
            for way, one in found.items()
            if way != captioner.strategy
        }
    return figures


def _checkpoint(ckpt_path: str | Path | None, name: str) -> Path | None:
    """The checkpoint of a model in the folder of an earlier run; None where it had not come to that model yet.

    Raises:
        UserError: There is none of either model.
    """
    if ckpt_path is None:
        return None
    path = Path(ckpt_path)
    folder = path if path.is_dir() else path.parent
    found = folder / f"{name}.ckpt"
    if not found.is_file() and not any((folder / f"{one}.ckpt").is_file() for one in ("language_model", "decoder")):
        raise UserError(
            f"There is no checkpoint {ckpt_path}; `ckpt_path` is the folder of an earlier run, with decoder.ckpt or "
            "language_model.ckpt in it."
        )
    return found if found.is_file() else None
