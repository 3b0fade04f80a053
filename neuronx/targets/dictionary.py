"""Dictionaries: directions in a layer, or a sparse autoencoder's encoder, whose latents are units like any others.

A file is read by the layout of the library that wrote it (`neuronx.targets.layouts`), or it is plain: safetensors, or a
torch file of tensors, with these keys (M latents of a layer with D units):

    encoder.weight (M, D), or W_enc (D, M)      the encoder
    encoder.bias or b_enc (M,)                  optional
    decoder.bias or b_dec (D,)                  optional, subtracted from the input first
    directions (M, D)                           instead of an encoder: plain projections, without ReLU
    k (), or k in a cfg.json beside the file    optional, TopK: the k largest latents of a position count, others are 0
    threshold (M,) or ()                        optional, JumpReLU: latents at or below it are 0
    decoder.weight, W_dec                       not needed

Latents of an encoder are ReLU(weight (x - b_dec) + bias), at every position of the layer. Whatever else a file holds
may change them, so that it is refused.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from neuronx.errors import UserError, first_line
from neuronx.store.checkpoints import FOLDER
from neuronx.store.given_file import given_file
from neuronx.store.torch_file import Foreign, json_header, read_torch_file
from neuronx.targets.encoder import Dictionary as Dictionary
from neuronx.targets.layers import dotted
from neuronx.targets.layouts import LAYOUTS, PLAIN, Saved, check_layout, checked_k, layout_of, shaped
from neuronx.targets.weights import load_weights

SUFFIX = ".dictionary"
"""The latents of a dictionary on `layer3` are the units of `layer3.dictionary`."""

FILES = ("sae_weights.safetensors", "sae.pt", "ae.pt", "weights.pt", "sae.safetensors")
"""Names of the weights in a folder, by the libraries that write them."""
READ = (
    *("encoder.weight", "W_enc", "directions", "encoder.bias", "b_enc", "decoder.bias", "b_dec", "k", "threshold"),
    *("decoder.weight", "W_dec"),
)
"""Tensors that a plain file may hold."""
TOP_K = ("k", "top_k", "topk")
KINDS = ("architecture", "activation", "activation_fn", "activation_fn_str", "nonlinearity")
"""Settings that name the activation."""
OTHER_SETTINGS = ("normalize_activations", "rescale_acts_by_decoder_norm", "dict_class", "threshold")
"""Settings that change the latents, by the libraries that write them."""
NEUTRAL = ("none", "false", "", "relu", "standard", "0")
"""Their values that change nothing."""


def substituted(layers: dict[str, str], reads: str | None) -> dict[str, str]:
    """The layers asked for, layer -> pooling, with the dictionary's latents among them.

    Where none of them is a `<layer>.dictionary`, the layer that the dictionary reads is replaced by it, or it is added.

    Args:
        layers: What was asked for.
        reads: The layer that the dictionary reads; the first of `layers` by default.
    """
    if any(layer.endswith(SUFFIX) for layer in layers):
        return layers
    reads = next(iter(layers)) if reads is None else dotted(reads)
    pool = layers.get(reads, next(iter(layers.values())))
    if reads not in layers:
        return layers | {f"{reads}{SUFFIX}": pool}
    return {f"{layer}{SUFFIX}" if layer == reads else layer: how for layer, how in layers.items()}


def load(path: str | Path, kind: str | None = None) -> Dictionary:
    """Reads a dictionary from a file, or from the folder that a library saved it in.

    Args:
        path: Of the weights, or their folder; or the name of a shipped autoencoder.
        kind: A name of `LAYOUTS`, or `plain`; by default what the file and the JSON beside it say.

    Raises:
        UserError: No such file, no weights in it, shapes that do not fit together, or anything that says that the
            encoder does more than is read here.
    """
    saved = _saved(_weights_in(Path(path).expanduser()))
    kind = layout_of(saved) if kind is None else check_layout(kind)
    return plain(saved) if kind == PLAIN else LAYOUTS[kind](saved)


def plain(saved: Saved) -> Dictionary:
    """Reads the format above."""
    path, state = saved.path, saved.tensors
    if unread := [name for name in state if name not in READ]:
        raise UserError(
            f"{path} holds `{unread[0]}`, which is not read here and may change the latents. Say what wrote it with "
            f"dictionary_kind={'|'.join(LAYOUTS)}. Read without it are {', '.join(READ)}."
        )
    weight = _only(path, state, "encoder.weight", "W_enc", "directions")
    rectify = "directions" not in state
    if weight is None or weight.ndim != 2:
        raise UserError(
            f"{path} holds {', '.join(list(state)[:6])}; a dictionary needs encoder.weight (latents, units), "
            "W_enc (units, latents) or directions (latents, units)."
        )
    weight = weight.T if "W_enc" in state else weight
    bias = _only(path, state, "encoder.bias", "b_enc")
    shift = _only(path, state, "decoder.bias", "b_dec")
    for name, vector, length in (("encoder bias", bias, weight.shape[0]), ("decoder bias", shift, weight.shape[1])):
        if vector is not None and vector.shape != (length,):
            raise UserError(f"{path}: the {name} has shape {tuple(vector.shape)}; expected ({length},).")
    k, threshold = _sparsity(saved, len(weight))
    if not rectify and (k is not None or threshold is not None or bias is not None):
        raise UserError(f"{path}: directions are plain projections; bias, k and threshold belong to an encoder.")
    subtracts = saved.settings.get("apply_b_dec_to_input")
    if subtracts is False:
        shift = None
    # Without thresholds and k, b_dec is subtracted; with them, libraries differ.
    told = subtracts is not None or (threshold is None and (k is None or "W_enc" not in state))
    if not told and shift is not None and bool(shift.any()):
        raise UserError(
            f"{path} does not say whether b_dec is subtracted from the input, and libraries differ: name the one that "
            f"wrote it, dictionary_kind={'|'.join(LAYOUTS)}, or put "
            '{"apply_b_dec_to_input": true} (or false) into cfg.json beside it, as SAELens does.'
        )
    return Dictionary(weight, bias, shift, rectify, threshold, k)


def _sparsity(saved: Saved, latents: int) -> tuple[int | None, Tensor | None]:
    """Reads k and the threshold of a plain file; UserError for settings that change the encoder otherwise."""
    path, k, kind = saved.path, None, ""
    for name, value in saved.settings.items():
        text = str(value).lower().replace("_", "")
        plain_value = isinstance(value, bool | int | float | str | None)
        if name in TOP_K and isinstance(value, int) and not isinstance(value, bool):
            k = value
        elif name in KINDS and plain_value and text in ("topk", "jumprelu"):
            kind = text
        elif name in (*KINDS, *OTHER_SETTINGS) and plain_value and text not in NEUTRAL:
            raise UserError(
                f"{path} or the JSON beside it says {name}={value}, which changes the latents and is not read here: "
                f"name what wrote it, dictionary_kind={'|'.join(LAYOUTS)}."
            )
    if "k" in saved.tensors:
        own = _whole(path, saved.tensors["k"])
        if k is not None and k != own:
            raise UserError(f"{path}: k is {own} in the weights and {k} in the settings.")
        k = own
    threshold = saved.tensors.get("threshold")
    if k is not None and threshold is not None:
        raise UserError(
            f"{path} holds k and threshold: whether the k largest latents count or those above the threshold cannot be "
            f"told; name what wrote it, dictionary_kind={'|'.join(LAYOUTS)}, or save one of them."
        )
    if k is not None:
        checked_k(path, k, latents)
    if kind == "topk" and k is None:
        raise UserError(f"{path} is a TopK autoencoder by its settings, but nothing says its k.")
    if kind == "jumprelu" and threshold is None:
        raise UserError(f"{path} is a JumpReLU autoencoder by its settings, but holds no threshold.")
    if threshold is not None:
        if threshold.numel() != 1:
            shaped(path, "threshold", threshold, latents)
        if not bool((threshold >= 0).all()):
            raise UserError(f"{path}: threshold is below 0 or NaN, as where it was never set; it must be at least 0.")
    return k, threshold


def _weights_in(path: Path) -> Path:
    """The file of weights: the path itself, the one in a folder, or a shipped one by its name."""
    if not path.exists() and (FOLDER / f"{path}.safetensors").is_file():
        return FOLDER / f"{path}.safetensors"
    if not path.is_dir():
        return given_file(path, "weights file")
    named = [path / name for name in FILES if (path / name).is_file()]
    found = named or sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".pt", ".pth"))
    if len(found) != 1:
        which = ", ".join(file.name for file in found[:4]) or "none"
        raise UserError(f"The folder {path} should hold one file of weights, such as {FILES[0]}, and holds {which}.")
    return found[0]


def _saved(path: Path) -> Saved:
    """What a file of weights holds, and what it and the JSON files beside it say."""
    tensors = load_weights(path)
    settings: dict[str, Any] = {}
    header, whole = None, ""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            settings |= file.metadata() or {}
    else:
        header = json_header(path)
        content = read_torch_file(path)
        if isinstance(content, Foreign):
            whole = content.name
        for name, value in [*_leaves(header or {}), *_leaves(content)]:
            settings.setdefault(name, value)
    for beside in (path.with_suffix(".json"), path.with_name("cfg.json"), path.with_name("config.json")):
        if beside.is_file():
            try:
                found = json.loads(beside.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(f"{beside}, beside {path.name}, is no JSON: {first_line(error)}.") from error
            for name, value in _leaves(found):
                settings.setdefault(name, value)
    return Saved(path, tensors, settings, header, whole)


def _leaves(content: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The plain values of nested dictionaries and of objects, by their own names, the outer ones first.

    Of an object that was saved whole, a single number in a tensor is one of them.
    """
    held = content.state if isinstance(content, Foreign) else content
    if not isinstance(held, Mapping) or depth > 6:
        return
    for name, value in held.items():
        if isinstance(content, Foreign) and isinstance(value, Tensor) and value.numel() == 1:
            yield str(name), value.item()
        elif not isinstance(value, Mapping | Tensor):
            yield str(name), value
    for value in held.values():
        if isinstance(value, Mapping):
            yield from _leaves(value, depth + 1)


def _only(path: str | Path, state: Mapping[str, Tensor], *names: str) -> Tensor | None:
    """The tensor that has one of some names."""
    found = [name for name in names if name in state]
    if len(found) > 1:
        raise UserError(f"{path} holds both `{found[0]}` and `{found[1]}`; which of them counts cannot be told.")
    return state[found[0]] if found else None


def _whole(path: str | Path, value: Tensor) -> int:
    if value.numel() != 1 or float(value) != int(value):
        raise UserError(f"{path}: k must be one whole number, not {tuple(value.shape)} {value.dtype}.")
    return int(value)
