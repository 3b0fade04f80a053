"""A captioner with the encoder that it was trained with: from pictures and masks to features to sentences.

A picture goes through the encoder's network once, unmasked. At each tap, a layer, the map is averaged over the mask,
brought to the layer's grid; the averages of all taps are joined. Nothing after the last tap is run.

Captioners of ours are a safetensors file with a card beside it; published ones are files of MILAN's authors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.concepts.clip import Clip
from neuronx.concepts.encoders import Encoder
from neuronx.concepts.masked_clip import MaskedClip
from neuronx.errors import UserError
from neuronx.methods.milan.captioner import Captioner, Captions
from neuronx.methods.milan.choosing import most_similar
from neuronx.methods.milan.features import IMAGES
from neuronx.methods.milan.networks import Decoder, LanguageModel, Vocabulary
from neuronx.methods.milan.published import BEAM, CLIP, KEYS, TEMPERATURE, WITH_CLIP, published_file, read_published
from neuronx.recording.maps import on_grid
from neuronx.store import checkpoints
from neuronx.targets import torchvision
from neuronx.targets.identity import weights_digest
from neuronx.targets.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from neuronx.targets.target import Target
from neuronx.types import Plain

PYRAMID = ("conv1", "layer1", "layer2", "layer3", "layer4")
BACKBONES = {
    "alexnet": ("features.0", "features.3", "features.6", "features.8", "features.10"),
    "resnet18": PYRAMID,
    "resnet50": PYRAMID,
    "resnet101": PYRAMID,
}
"""The published taps of torchvision's networks."""


@dataclass(frozen=True, eq=False)
class RegionEncoder:
    """From pictures and masks to features.

    Attributes:
        target: The network; pictures are normalised as its transform does, neither resized nor cropped by it.
        taps: Layers, in the order of the features.
        side: Pictures of another size are squashed to this side; None takes them as they are.
        published_masks: Bring masks to the grids by plain bilinear interpolation, as the published code does: it looks
            at 2 x 2 pixels for each cell, so that small masks may vanish. Otherwise cells hold the mean of the mask.
        clip: Identity of the CLIP whose picture tower the network is; "" for others.
        spatial: Give the features of every place of a tap, of pictures that have the mean colour outside of their
            masks, as MILAN's spatial encoder does.
    """

    target: Target
    taps: tuple[str, ...]
    side: int | None = None
    published_masks: bool = False
    clip: str = ""
    spatial: bool = False

    def __post_init__(self) -> None:
        if not self.taps:
            raise UserError(f"The encoder {self.target.name} needs a layer at least; set milan.taps=[...].")
        _statistics(self.target)

    @property
    def name(self) -> str:
        """Of the network."""
        return self.target.name

    @cached_property
    def size(self) -> int:
        """D, the length of a picture's features; found by one pass."""
        side = self.side or self.target.input_size or 64
        device = next(self.target.module.parameters()).device
        with torch.inference_mode():
            blank = torch.zeros(1, 3, side, side, device=device)
            return self(blank, torch.ones_like(blank[:, :1])).shape[-1]

    @property
    def identity(self) -> dict[str, Plain]:
        """All that decides the features, but for the pictures and the masks."""
        mean, std = _statistics(self.target)
        return {
            "network": self.target.digest,
            "taps": list(self.taps),
            "side": self.side,
            "mean": list(mean),
            "std": list(std),
            "published_masks": self.published_masks,
            **({"spatial": True} if self.spatial else {}),
        }

    def __call__(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Features (N, D) float32, on the network's device; those of an empty mask are 0. (N, P, D) if `spatial`.

        Args:
            images: (N, 3, H, W), uint8 or floats in [0, 1].
            masks: (N, 1, H', W'), 1 inside and 0 outside; all of each picture when None.

        Raises:
            UserError: Images or masks of another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise UserError(f"The encoder takes images (N, 3, height, width), not {tuple(images.shape)}.")
        if masks is None:
            masks = images.new_ones(len(images), 1, 1, 1)
        if masks.ndim != 4 or masks.shape[:2] != (len(images), 1):
            raise UserError(f"{len(images)} images need masks ({len(images)}, 1, height, width): {tuple(masks.shape)}.")
        device = next(self.target.module.parameters()).device
        masks = masks.to(device, torch.float32)
        inputs = self._inputs(images.to(device))
        if self.spatial:  # the normalised picture is multiplied, as published: outside of a mask it has the mean colour
            inputs = inputs * F.interpolate(masks, inputs.shape[2:]).to(inputs.dtype)
        features = self._tapped(inputs, masks)
        return torch.cat([features[tap] for tap in self.taps], -1)

    def _inputs(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in _statistics(self.target))
        images = images.float().div_(255) if images.dtype == torch.uint8 else images.float()
        if self.side is not None and images.shape[-2:] != (self.side, self.side):
            images = F.interpolate(images, (self.side,) * 2, mode="bilinear", align_corners=False, antialias=True)
        return ((images - mean) / std).to(next(self.target.module.parameters()).dtype)

    def _tapped(self, inputs: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Tap -> features; the pass ends at the last tap."""
        features: dict[str, Tensor] = {}

        def take(layer: str, output: Tensor) -> Tensor:
            features[layer] = self._averaged(output, masks)
            if len(features) == len(self.taps):
                raise _AllTapsRead
            return output.new_empty(0)

        try:
            with self.target.record(self.taps, take):
                self.target.module(inputs)
        except _AllTapsRead:
            pass
        return features

    def _averaged(self, output: Tensor, masks: Tensor) -> Tensor:
        """The mean (N, C) of a tap's output over masks (N, 1, H, W); if `spatial`, its places (N, P, C)."""
        maps = output[:, :, None, None] if output.ndim == 2 else on_grid(output, self.target.prefix_tokens or 0)
        if self.spatial:
            return maps.float().flatten(2).transpose(1, 2)
        weights = shrunk(masks, maps.shape[-2:], self.published_masks).flatten(1)
        total = weights.sum(1, keepdim=True)
        weights = weights / total.where(total > 1e-8, 1)
        return (maps.float().flatten(2) @ weights.unsqueeze(2)).squeeze(2)


def shrunk(masks: Tensor, grid: Sequence[int], published: bool = False) -> Tensor:
    """Masks (N, 1, H, W) brought to a grid: each cell holds the mean of what it covers.

    Bilinear where the grid is finer, and in any case if `published`.
    """
    height, width = grid
    if published or height > masks.shape[2] or width > masks.shape[3]:
        return F.interpolate(masks, (height, width), mode="bilinear", align_corners=False)
    return F.adaptive_avg_pool2d(masks, (height, width))


def encoder_of(
    network: "str | Path | Target | RegionEncoder",
    taps: Sequence[str] | None = None,
    published_masks: bool = False,
    backbone: Mapping[str, Tensor] | None = None,
) -> RegionEncoder:
    """The encoder made of a network.

    Args:
        network: alexnet, resnet18, resnet50 or resnet101 with torchvision's weights for ImageNet, fetched on first use,
            which takes pictures of any size; a trained part with a card, shipped or a file: a classifier, or a CLIP,
            whose picture tower is the network; or any target.
        taps: Layers; by default the published ones, conv1 and layer1 to layer4, of networks that have them, or else
            those that the target asks for; layer3 and layer4 of a CLIP.
        published_masks: As in `RegionEncoder`.
        backbone: Weights for one of torchvision's networks, of a published captioner. The classifier may be missing.

    Raises:
        UserError: No such network, or weights that do not fit it.
    """
    if isinstance(network, RegionEncoder):
        return network
    if isinstance(network, str) and network in BACKBONES:
        usual = BACKBONES[network]
        target = _filled(network, backbone) if backbone else torchvision.load(network, "IMAGENET1K_V1", layers=usual)
        return RegionEncoder(_normalising(target), tuple(taps or usual), None, published_masks)
    part = network if isinstance(network, Target) else _trained_part(network)
    if isinstance(part, Encoder):
        tower = part.model.visual
        layers = {name: "avg" for name, _ in tower.named_modules() if name.rpartition(".")[2] in PYRAMID[-2:]}
        side = tower.image_size if isinstance(tower.image_size, int) else tower.image_size[0]
        target = Target(checkpoints.find(str(network)).stem, tower, part.transform, layers, input_size=side)
        return RegionEncoder(target, tuple(taps or layers), side, published_masks, part.identity)
    pyramid = all(hasattr(part.module, layer) for layer in PYRAMID)
    return RegionEncoder(part, tuple(taps or (PYRAMID if pyramid else part.layers)), part.input_size, published_masks)


def _trained_part(network: str | Path) -> "Target | Encoder":
    try:
        part = checkpoints.load(network)
    except UserError as error:
        if Path(network).suffix == ".safetensors":
            raise
        raise UserError(f"{error} Encoders of torchvision are {', '.join(BACKBONES)}.") from None
    if not isinstance(part, Target | Encoder):
        raise UserError(f"{network} is a {type(part).__name__}; an encoder is made of a classifier or a CLIP.")
    return part


@dataclass(frozen=True, eq=False)
class Describer:
    """Describes units by their exemplars.

    Attributes:
        captioner: From features to sentences.
        encoder: From pictures and masks to features.
        name: Where the weights come from.
        published: Whether captions are written as the published code does, with its score of the language model.
        domain: The kind of pictures that it knows, "shapes" or "natural"; "" where nobody said.
        clip: Chooses among the beam the caption that is most similar to the exemplars; None takes the best of the beam.
    """

    captioner: Captioner
    encoder: RegionEncoder
    name: str
    published: bool = False
    domain: str = ""
    clip: Clip | None = None

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
        captions = self.write(self.features(images, masks), **options)
        if self.clip is None:
            return captions
        if captions.beams is None:
            raise UserError(
                f"{self.name}{WITH_CLIP} chooses among a beam: use strategy=beam, or the captioner {self.name}."
            )
        units = images if images.ndim == 5 else images.unsqueeze(0)
        sees = MaskedClip(self.clip.encoder.image_target(self.clip.name))
        with torch.inference_mode():
            pictures = (
                (units if units.dtype == torch.uint8 else units.mul(255).round().byte()).flatten(0, 1).split(IMAGES)
            )
            seen = torch.cat([sees(some, torch.ones_like(some[:, :1])) for some in pictures]).unflatten(
                0, units.shape[:2]
            )
        return most_similar(captions, self.captioner, self.clip, seen)[0]

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
        features = [self.encoder(*pair) for pair in zip(pictures, cut, strict=True)]
        return torch.cat(features).unflatten(0, images.shape[:2]).flatten(1, -2)

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
    if is_published(weights):
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


def is_published(weights: "str | Path | Describer") -> bool:
    """Whether these are weights, or the file, of a published captioner."""
    return not isinstance(weights, Describer) and (
        str(weights) == "published" or Path(weights).suffix in (".pth", ".pt")
    )


def chooses(weights: "str | Path | Describer", key: str) -> bool:
    """Whether a CLIP chooses the captions of this captioner, as published."""
    return str(weights) == "published" and key.endswith(WITH_CLIP)


def pretrained(name: str | Path = "base", encoder: Any = None) -> Describer:
    """A captioner to be called with images and masks.

    Args:
        name: One of the published ones (base, cls, gen, imagenet, places365, alexnet, resnet152, biggan), which is
            fetched on first use, or with CLIP's choice among 1000 captions (base+clip, ...); the name of a shipped one;
            or a file, published or of ours.
        encoder: As in `load`.

    Returns:
        `pretrained("base")(images, masks).captions` are the sentences.
    """
    return (
        load("published", str(name), encoder)
        if str(name).removesuffix(WITH_CLIP) in KEYS
        else load(name, encoder=encoder)
    )


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
            "digest": weights_digest(encoder.target.module),
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
    if weights_digest(found.target.module) != used["digest"]:
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
        if read.spatial:
            found = replace(found, taps=PYRAMID[-1:], spatial=True)
    else:
        found = encoder_of(encoder, None, masks)
    name = key.removesuffix(WITH_CLIP) if str(weights) == "published" else Path(weights).stem
    captioner, clip = read.captioner.requires_grad_(False), None
    if chooses(weights, key):
        clip = Clip(*CLIP)
        captioner.strategy, captioner.temperature = "beam", TEMPERATURE
        captioner.beam_size = min(BEAM, captioner.decoder.specials.size)
    return Describer(captioner, found, name, published=True, domain="natural", clip=clip)


class _AllTapsRead(Exception):
    """Ends a forward pass: all taps have been read."""


def _filled(network: str, backbone: Mapping[str, Tensor]) -> Target:
    target = torchvision.load(network, "random", layers=BACKBONES[network])
    own = target.module.state_dict()
    for name, value in own.items():
        if name in backbone and backbone[name].shape == value.shape:
            value.copy_(backbone[name])
        elif name.startswith(("fc.", "classifier.")):
            value.zero_()  # never run, but part of the identity
        elif not name.endswith("num_batches_tracked"):
            raise UserError(f"The weights do not fit {network}: {name} is missing or of another shape.")
    # Made anew, so that its digest is that of the weights.
    return Target(network, target.module, target.transform, target.layers)


def _normalising(target: Target) -> Target:
    """ImageNet's statistics, as published, whatever the weights were evaluated with."""
    return Target(target.name, target.module, Preprocess(mean=IMAGENET_MEAN, std=IMAGENET_STD), target.layers)


def _statistics(target: Target) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel that a target's transform takes pictures in [0, 1] to."""
    transform: Any = target.transform
    if isinstance(transform, Preprocess):
        return transform.mean or (0.0,) * 3, transform.std or (1.0,) * 3
    for step in getattr(transform, "transforms", None) or ():
        if type(step).__name__ == "Normalize":
            return tuple(map(float, step.mean)), tuple(map(float, step.std))
    raise UserError(
        f"How {target.name} normalises pictures is unknown, so it cannot be an encoder: give its transform as a "
        "neuronx Preprocess, or as a list of steps with Normalize among them."
    )
