"""Dictionaries: directions in a layer, or a sparse autoencoder's encoder, whose latents are units like any others.

The file is safetensors, or a torch file of plain tensors, with these keys (M latents of a layer with D units):

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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from neuronx.errors import UserError, first_line
from neuronx.store.torch_file import Foreign, read_torch_file
from neuronx.targets.identity import module_digest
from neuronx.targets.layers import dotted
from neuronx.targets.weights import load_weights

SUFFIX = ".dictionary"
"""The latents of a dictionary on `layer3` are the units of `layer3.dictionary`."""

READ = (
    *("encoder.weight", "W_enc", "directions", "encoder.bias", "b_enc", "decoder.bias", "b_dec", "k", "threshold"),
    *("decoder.weight", "W_dec"),
)
"""Tensors that a file may hold."""
KINDS = ("architecture", "activation", "activation_fn", "activation_fn_str", "nonlinearity")
OTHER_SETTINGS = (
    "normalize_activations",
    "rescale_acts_by_decoder_norm",
    "dict_class",
    "threshold",
    "reshape_activations",
)
"""Names of settings that change the latents, by the libraries that write them."""
NEUTRAL = ("none", "false", "", "relu", "standard", "0")
"""Their values that change nothing."""


class Dictionary(nn.Module):
    """Turns a layer's output into latents, position by position.

    Args:
        weight: (M, D) float32.
        bias: (M,), or None.
        shift: (D,), subtracted from the input, or None.
        rectify: Whether latents are cut at 0.
        threshold: (M,) or (), latents at or below it are 0; None for none.
        k: How many latents count at each position, the largest; None for all.
    """

    weight: Tensor
    bias: Tensor
    threshold: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        shift: Tensor | None = None,
        rectify: bool = True,
        threshold: Tensor | None = None,
        k: int | None = None,
    ) -> None:
        super().__init__()
        weight = weight.float()
        bias = torch.zeros(len(weight)) if bias is None else bias.float()
        if shift is not None:  # weight (x - shift) + bias = weight x + (bias - weight shift)
            bias = bias - weight @ shift.float()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("threshold", None if threshold is None else threshold.float())
        self.rectify, self.k = rectify, k

    def forward(self, output: Tensor) -> Tensor:
        """(B, D), (B, T, D) or (B, D, H, W) to the same with M in place of D, in the dictionary's precision.

        Raises:
            UserError: The layer has another number of units than the dictionary.
        """
        axis = 1 if output.ndim == 4 else -1
        if output.shape[axis] != self.weight.shape[1]:
            raise UserError(
                f"The dictionary reads {self.weight.shape[1]} units, but its layer has {output.shape[axis]}; "
                "set dictionary_layer to the layer that it was made for."
            )
        latents = nn.functional.linear(output.to(self.weight.dtype).movedim(axis, -1), self.weight, self.bias)
        latents = latents.relu_() if self.rectify else latents
        if self.threshold is not None:
            latents.masked_fill_(latents <= self.threshold, 0.0)
        if self.k is not None:
            largest, places = latents.topk(self.k)
            latents = torch.zeros_like(latents).scatter(-1, places, largest)
        return latents.movedim(-1, axis)

    def extra_repr(self) -> str:
        """Shape and kind; part of the identity."""
        return f"{tuple(self.weight.shape)}, rectify={self.rectify}, k={self.k}"

    @cached_property
    def digest(self) -> str:
        """Hex identity."""
        return module_digest(self)


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


def load(path: str | Path) -> Dictionary:
    """Reads a dictionary from a file of the format above.

    Raises:
        UserError: No such file, no weights in it, shapes that do not fit together, or anything that says that the
            encoder does more than is read here.
    """
    state, settings = load_weights(path), Settings.of(path)
    if unread := [name for name in state if name not in READ]:
        raise UserError(
            f"{path} holds `{unread[0]}`, which is not read here and may change the latents. Read are "
            f"{', '.join(READ)}; save these alone if they are all that the encoder does."
        )
    weight = _only(path, state, "encoder.weight", "W_enc", "directions")
    rectify = "directions" not in state
    if weight is None or weight.ndim != 2:
        raise UserError(
            f"{path} holds {', '.join(list(state)[:6])}; a dictionary needs encoder.weight (latents, units), "
            "W_enc (units, latents) or directions (latents, units)."
        )
    if "W_enc" in state:
        weight = weight.T.contiguous()
    bias = _only(path, state, "encoder.bias", "b_enc")
    shift = _only(path, state, "decoder.bias", "b_dec")
    for name, vector, length in (("encoder bias", bias, weight.shape[0]), ("decoder bias", shift, weight.shape[1])):
        if vector is not None and vector.shape != (length,):
            raise UserError(f"{path}: the {name} has shape {tuple(vector.shape)}; expected ({length},).")
    k, threshold = settings.k, state.get("threshold")
    if "k" in state:
        k = _whole(path, state["k"]) if k is None else k
        if k != _whole(path, state["k"]):
            raise UserError(f"{path}: k is {_whole(path, state['k'])} in the weights and {k} in the settings.")
    _check_sparsity(path, k, threshold, len(weight), settings)
    if not rectify and (k is not None or threshold is not None or bias is not None):
        raise UserError(f"{path}: directions are plain projections; bias, k and threshold belong to an encoder.")
    if settings.subtracts is False:
        shift = None
    # Without thresholds and k, b_dec is subtracted; with them, libraries differ.
    told = settings.subtracts is not None or (threshold is None and (k is None or "W_enc" not in state))
    if not told and shift is not None and bool(shift.any()):
        raise UserError(
            f"{path} does not say whether b_dec is subtracted from the input, and libraries differ: put "
            '{"apply_b_dec_to_input": true} (or false) into cfg.json beside it, as SAELens does.'
        )
    return Dictionary(weight, bias, shift, rectify, threshold, k)


@dataclass(frozen=True)
class Settings:
    """What a file, or the cfg.json or config.json beside it, says of an autoencoder besides its weights.

    Attributes:
        k: How many latents are left at each position.
        kind: `topk`, `jumprelu`, or "" for neither.
        subtracts: Whether the decoder bias is subtracted from the input; None where nothing says so.
    """

    k: int | None = None
    kind: str = ""
    subtracts: bool | None = None

    @classmethod
    def of(cls, path: str | Path) -> "Settings":
        """Looks into the file and beside it.

        Raises:
            UserError: A setting that changes the encoder in a way that is not read here.
        """
        k, kind, subtracts = None, "", None
        for where, name, value in _said(Path(path).expanduser()):
            text = str(value).lower().replace("_", "")
            plain = isinstance(value, bool | int | float | str | None)
            if name in ("k", "top_k", "topk") and isinstance(value, int) and not isinstance(value, bool):
                k = value
            elif name == "apply_b_dec_to_input" and isinstance(value, bool):
                subtracts = value
            elif name in KINDS and plain and text in ("topk", "jumprelu"):
                kind = text
            elif name in (*KINDS, *OTHER_SETTINGS) and plain and text not in NEUTRAL:
                raise UserError(
                    f"{where} says {name}={value}, which changes the latents and is not read here: only ReLU, TopK and "
                    "JumpReLU encoders of unchanged inputs are."
                )
        return cls(k, kind, subtracts)


def _said(path: Path) -> Iterator[tuple[Path, str, Any]]:
    """(file, name, value) of all settings in a file of weights and in the JSON files beside it."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            yield from _leaves(path, file.metadata() or {})
    else:
        yield from _leaves(path, read_torch_file(path))
    for beside in (path.with_name("cfg.json"), path.with_name("config.json")):
        if beside.is_file():
            try:
                found = json.loads(beside.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(f"{beside}, beside {path.name}, is no JSON: {first_line(error)}.") from error
            yield from _leaves(beside, found)


def _leaves(where: Path, content: Any, depth: int = 0) -> Iterator[tuple[Path, str, Any]]:
    """The plain values of nested dictionaries and of objects, by their own names."""
    held = content.state if isinstance(content, Foreign) else content
    if isinstance(held, Mapping) and depth < 6:
        for name, value in held.items():
            if isinstance(value, Mapping):
                yield from _leaves(where, value, depth + 1)
            elif not isinstance(value, Tensor):
                yield where, str(name), value


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


def _check_sparsity(
    path: str | Path, k: int | None, threshold: Tensor | None, latents: int, settings: Settings
) -> None:
    if k is not None and threshold is not None:
        raise UserError(
            f"{path} holds k and threshold: whether the k largest latents count or those above the threshold cannot be "
            "told; save one of them."
        )
    if k is not None and not 1 <= k <= latents:
        raise UserError(f"{path}: k={k} of {latents} latents; it must be from 1 to {latents}.")
    if settings.kind == "topk" and k is None:
        raise UserError(f"{path} is a TopK autoencoder by its settings, but nothing says its k.")
    if settings.kind == "jumprelu" and threshold is None:
        raise UserError(f"{path} is a JumpReLU autoencoder by its settings, but holds no threshold.")
    if threshold is None:
        return
    if threshold.numel() != 1 and threshold.shape != (latents,):
        raise UserError(f"{path}: threshold has shape {tuple(threshold.shape)}; expected ({latents},) or one number.")
    if not bool((threshold >= 0).all()):
        raise UserError(f"{path}: threshold is below 0 or NaN, as where it was never set; it must be at least 0.")
