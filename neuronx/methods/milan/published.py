"""The captioners that MILAN's authors published: one file each, with encoder, decoder and language model.

A file is a zip of torch and holds `{properties, children, state_dict}`. The properties repeat the arguments of the
published classes, nested; read from them are the words, the sizes, the defaults of decoding and the name of the
encoder's network. The pickled spaCy pipelines are left alone: tokens are those of spaCy's rules (see `vocabulary`).

Nothing in the file runs (see `neuronx.store.torch_file`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from neuronx.errors import UserError, unknown
from neuronx.methods.milan.captioner import Captioner
from neuronx.methods.milan.networks import Decoder, LanguageModel, Vocabulary
from neuronx.store.cache import data_root
from neuronx.store.download import fetch
from neuronx.store.torch_file import read_torch_file

KEYS = ("base", "cls", "gen", "imagenet", "places365", "alexnet", "resnet152", "biggan")
"""What the published captioners were trained on: groups of the MILANNOTATIONS."""

URL = "http://milan.csail.mit.edu/models/milan-{key}.pth"

WITH_CLIP = "+clip"
"""Ends the keys of captioners whose captions a CLIP chooses among a beam."""
BEAM, TEMPERATURE = 1000, 0.5
"""How these search: captions in the beam, weight of the language model."""
CLIP = ("ViT-B-32", "openai")
"""The CLIP that chooses."""

FEATURE_SIZES = {"alexnet": 1152, "resnet18": 1024, "resnet50": 3904, "resnet101": 3904}
"""D of the encoders, by the network that they are made of."""
SPATIAL, SPATIAL_SIZES = "SpatialConvEncoder", {"resnet18": 512}
"""The encoder that gives a vector for each place of layer4 instead of one for each picture, and its D."""

_DECODER = {
    "initial_h": "init_h.0",
    "initial_c": "init_c.0",
    "embedding": "embedding",
    "query": "attend.query_to_hidden",
    "key": "attend.key_to_hidden",
    "attention": "attend.output.0",
    "gate": "feature_gate.0",
    "cell": "lstm",
    "output": "output.1",
}
_LANGUAGE_MODEL = {"embedding": "lm.embedding", "lstm": "lm.lstm", "output": "lm.output.0"}
_BACKBONE = "encoder.encoder.model."


@dataclass(frozen=True)
class PublishedCaptioner:
    """What a published file holds.

    Attributes:
        captioner: Decoder, language model and vocabulary, with the published defaults, in evaluation mode.
        encoder: Name of the encoder's network: alexnet, resnet18, resnet50 or resnet101, of torchvision.
        backbone: Weights of that network by torchvision's names, without the classifier of a ResNet.
        spatial: Whether the encoder gives a vector for each place of the last layer.
    """

    captioner: Captioner
    encoder: str
    backbone: dict[str, Tensor]
    spatial: bool = False


def published_file(weights: str | Path = "published", key: str = "base") -> Path:
    """The file itself, or the download of the captioner `key` when `weights` is "published".

    Raises:
        UserError: An unknown key; no file; or, within seconds, no connection, saying what to do without one.
    """
    if str(weights) != "published":
        return Path(weights).expanduser()
    key = key.removesuffix(WITH_CLIP)
    if key not in KEYS:
        raise unknown("published captioner", key, KEYS)
    path = data_root() / "milan" / f"milan-{key}.pth"
    return fetch(URL.format(key=key), path, hint="or set milan.weights=FILE, in Python pretrained(FILE)")


def read_published(path: str | Path) -> PublishedCaptioner:
    """Reads a published file, without running code of it.

    Raises:
        UserError: As `read_torch_file`; or it is not a captioner, its parts do not fit together, or its decoder and its
            language model have other words.
    """
    payload = read_torch_file(path, "captioner file")
    try:
        state, properties = payload["state_dict"], payload["properties"]
        words = _words(properties)
        encoder = (properties.get("encoder") or {}).get("properties", {}).get("config", "resnet50")
        lm = properties.get("lm")
        lm_words = None if lm is None else _words(lm["properties"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a captioner of MILAN ({type(error).__name__}: {error}).") from error
    if lm_words not in (None, words):
        raise UserError(f"{path}: the words of the language model are not the decoder's, or not in their order.")
    spatial = (payload.get("children") or {}).get("encoder") == SPATIAL
    sizes_of = SPATIAL_SIZES if spatial else FEATURE_SIZES
    if encoder not in sizes_of:
        raise unknown("encoder", str(encoder), sizes_of, f"{path} names it.")
    decoder = Decoder(
        len(words),
        sizes_of[encoder],
        attention_size=properties.get("attention_hidden_size"),
        **_given(properties, "embedding_size", "hidden_size", "dropout"),
    )
    _fill(decoder, state, _DECODER, path)
    language_model = None
    if lm is not None:
        sizes = _given(lm["properties"], "embedding_size", "hidden_size", "layers", "dropout")
        language_model = LanguageModel(len(words), **sizes)
        _fill(language_model, state, _LANGUAGE_MODEL, path)
    defaults = _given(properties, "strategy", "temperature", "beam_size", "length")
    backbone = {name.removeprefix(_BACKBONE): value for name, value in state.items() if name.startswith(_BACKBONE)}
    return PublishedCaptioner(
        Captioner(Vocabulary(words), decoder, language_model, **defaults).eval(),
        encoder,
        {name: value for name, value in backbone.items() if not name.startswith("fc.")},
        spatial,
    )


def _words(properties: Mapping[str, Any]) -> tuple[str, ...]:
    words = tuple(properties["indexer"]["properties"]["vocab"]["properties"]["tokens"])
    if not all(isinstance(word, str) for word in words):
        raise TypeError("a word that is text")
    return words


def _given(properties: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: properties[name] for name in names if properties.get(name) is not None}


def _fill(module: nn.Module, state: Mapping[str, Any], names: Mapping[str, str], path: str | Path) -> None:
    """Copies the published tensors into a module of ours, all of them."""
    tensors = module.state_dict()
    for name, own in module.named_parameters():
        layer, leaf = name.rsplit(".", 1)
        published = f"{names[layer]}.{leaf}"
        found = state.get(published)
        if not isinstance(found, Tensor) or found.shape != own.shape:
            what = f"has shape {tuple(found.shape)}" if isinstance(found, Tensor) else "is missing"
            raise UserError(
                f"{path}: {published} {what}; a captioner with this encoder and these words needs {tuple(own.shape)}."
            )
        tensors[name] = found
    module.load_state_dict(tensors)
