"""A captioner with the encoder that it was trained with: from exemplars to sentences. Reading and writing both.

Captioners of ours are a safetensors file with a card beside it; published ones are files of MILAN's authors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.methods.milan.captioner import Captioner, Captions
from neuronx.methods.milan.decoder import Decoder
from neuronx.methods.milan.encoder import RegionEncoder, encoder_of
from neuronx.methods.milan.features import IMAGES
from neuronx.methods.milan.language_model import LanguageModel
from neuronx.methods.milan.published import KEYS, published_file, read_published
from neuronx.methods.milan.vocabulary import Vocabulary
from neuronx.store import checkpoints
from neuronx.types import Plain


@dataclass(frozen=True, eq=False)
class Describer:
    """Describes units by their exemplars.

    Attributes:
        captioner: From features to sentences.
        encoder: From pictures and masks to features.
        name: Where the weights come from.
        published: Whether captions are written as the published code does, with its score of the language model.
        domain: The kind of pictures that it knows, "shapes" or "natural"; "" where nobody said.
    """

    captioner: Captioner
    encoder: RegionEncoder
    name: str
    published: bool = False
    domain: str = ""

    def __post_init__(self) -> None:
        wanted = self.captioner.decoder.key.in_features
        if self.encoder.size != wanted:
            raise UserError(
                f"The encoder {self.encoder.name} gives {self.encoder.size} features and the captioner {self.name} "
                f"takes {wanted}: use the encoder that it was trained with."
            )

    def __call__(self, images: Tensor, masks: Tensor | None = None, **options: Any) -> Captions:
        """Describes U units.

        Args:
            images: (U, k, 3, H, W) of their exemplars, uint8 or floats in [0, 1]; (k, 3, H, W) of one unit.
            masks: (U, k, 1, H, W), 1 where the unit fires; (k, 1, H, W) of one unit; all of each picture when None.
            options: Of `Captioner.forward`, such as `strategy="beam"` or `beam_size=10`.

        Raises:
            UserError: Images or masks of another shape, or as `Captioner.forward`.
        """
        return self.write(self.features(images, masks), **options)

    @torch.inference_mode()
    def features(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """The features (U, k, D) of exemplars; see `__call__`."""
        if images.ndim == 4:
            images, masks = images.unsqueeze(0), None if masks is None else masks.unsqueeze(0)
        if images.ndim != 5 or (masks is not None and masks.shape[:2] != images.shape[:2]):
            shapes = f"{tuple(images.shape)}" + ("" if masks is None else f" and {tuple(masks.shape)}")
            raise UserError(f"Units need images (U, k, 3, H, W) and masks (U, k, 1, H, W), not {shapes}.")
        pictures = images.flatten(0, 1).split(IMAGES)
        cut = [None] * len(pictures) if masks is None else masks.flatten(0, 1).split(IMAGES)
        found = [self.encoder(*pair) for pair in zip(pictures, cut, strict=True)]
        return torch.cat(found).unflatten(0, images.shape[:2])

    def write(self, features: Tensor, **options: Any) -> Captions:
        """Captions from features (U, k, D)."""
        device = self.captioner.decoder.key.weight.device
        return self.captioner(features.to(device), **({"published_lm_score": self.published} | options))


def load(weights: str | Path, key: str = "base", encoder: Any = None, published_masks: bool | None = None) -> Describer:
    """Reads a captioner and its encoder.

    Args:
        weights: Name of a shipped captioner; a safetensors file that `train.py milan=` wrote, its card beside it;
            `published`, which downloads; or a file that MILAN's authors published.
        key: Which of the published captioners is downloaded.
        encoder: In place of the one that belongs to it, as `encoder_of` takes it; needed for a captioner that was
            trained with a network of your own.
        published_masks: As in `RegionEncoder`; as it was trained by default.

    Raises:
        UserError: No such file or name; no captioner; an encoder that does not fit.
    """
    if str(weights) == "published" or Path(weights).suffix in (".pth", ".pt"):
        return _published(weights, key, encoder, published_masks)
    path = checkpoints.find(weights)
    state, card = checkpoints.read(weights)
    if "captioner" not in card:
        raise UserError(f"The card of {path} describes no captioner; train.py milan=base makes one.")
    captioner = _rebuilt(card)
    try:
        captioner.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"The weights {path} do not fit their card ({str(error).splitlines()[-1].strip()}).") from error
    captioner.eval().requires_grad_(False)
    found = _encoder(path, card, encoder, published_masks)
    return Describer(captioner, found, path.stem, domain=card.get("domain", ""))


def pretrained(name: str | Path = "base", encoder: Any = None) -> Describer:
    """A captioner to be called with images and masks.

    Args:
        name: One of the published ones (base, cls, gen, imagenet, places365, alexnet, resnet152, biggan), which is
            fetched on first use; the name of a shipped one; or a file, published or of ours.
        encoder: As in `load`.

    Returns:
        `pretrained("base")(images, masks).captions` are the sentences.
    """
    return load("published", str(name), encoder) if name in KEYS else load(name, encoder=encoder)


def card(captioner: Captioner, encoder: RegionEncoder) -> dict[str, Plain]:
    """What is needed to rebuild both, beside the weights of the captioner."""
    decoder, language_model = captioner.decoder, captioner.language_model
    sizes: dict[str, Plain] = {
        "feature_size": decoder.key.in_features,
        "embedding_size": decoder.embedding.embedding_dim,
        "hidden_size": decoder.cell.hidden_size,
        "attention_size": decoder.key.out_features,
    }
    if language_model is not None:
        sizes["language_model"] = {
            "embedding_size": language_model.embedding.embedding_dim,
            "hidden_size": language_model.lstm.hidden_size,
            "layers": language_model.lstm.num_layers,
        }
    options = ("strategy", "temperature", "beam_size", "length")
    return {
        "captioner": {**sizes, **{name: getattr(captioner, name) for name in options}},
        "encoder": {
            "network": encoder.name,
            "digest": encoder.target.digest,
            "taps": list(encoder.taps),
            "published_masks": encoder.published_masks,
        },
        "words": list(captioner.vocabulary.words),
    }


def _rebuilt(card: Mapping[str, Any]) -> Captioner:
    sizes = dict(card["captioner"])
    options = {name: sizes.pop(name) for name in ("strategy", "temperature", "beam_size", "length")}
    of_language_model, vocabulary = sizes.pop("language_model", None), Vocabulary(tuple(card["words"]))
    words = len(vocabulary.words)
    language_model = None if of_language_model is None else LanguageModel(words, **of_language_model)
    return Captioner(vocabulary, Decoder(words, **sizes), language_model, **options)


def _encoder(path: Path, card: Mapping[str, Any], given: Any, published_masks: bool | None) -> RegionEncoder:
    used = card["encoder"]
    masks = used["published_masks"] if published_masks is None else published_masks
    if given is not None:
        taps = None if isinstance(given, RegionEncoder) else used["taps"]
        return encoder_of(given, taps, masks)
    try:
        found = encoder_of(used["network"], used["taps"], masks)
    except UserError as error:
        raise UserError(
            f"{path} was trained with the encoder {used['network']}, which is not here: give it with milan.encoder=. "
            f"({error})"
        ) from None
    if found.target.digest != used["digest"]:
        raise UserError(
            f"{path} was trained with other weights of the encoder {used['network']} than those here: give the network "
            "of its training with milan.encoder=FILE."
        )
    return found


def _published(weights: str | Path, key: str, encoder: Any, published_masks: bool | None) -> Describer:
    read = read_published(published_file(weights, key))
    masks = True if published_masks is None else published_masks
    if encoder is None:
        found = encoder_of(read.encoder, None, masks, read.backbone or None)
    else:
        found = encoder_of(encoder, None, masks)
    name = key if str(weights) == "published" else Path(weights).stem
    return Describer(read.captioner.requires_grad_(False), found, name, published=True, domain="natural")
