"""Sparse autoencoders in the layouts of the libraries that train them, each read by the formula of its library.

    saev                 sae.pt: a line of JSON, then tensors
    saelens              sae_weights.safetensors beside cfg.json
    prisma               ViT-Prisma: weights.pt beside config.json, or a pickle of both
    dictionary_learning  ae.pt beside config.json (sae-for-vlm too)
    overcomplete         a module saved whole, or its tensors beside a JSON that says what it is

What a file or the JSON beside it says and is not read here may change the latents, so that it is refused.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.targets.encoder import Dictionary, Gate


@dataclass(frozen=True)
class Saved:
    """What was saved of an autoencoder.

    Attributes:
        path: Of the weights.
        tensors: By name.
        settings: By name, however deep: of the file itself, and of the JSON beside it.
        header: The line of JSON before the tensors, where there is one.
        whole: Class of a module that was saved whole, with its package; "" where tensors were saved.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    header: Mapping[str, Any] | None = None
    whole: str = ""

    def tensor(self, name: str, *shape: int) -> Tensor:
        """A tensor that must be there, of a shape where one is named."""
        if name not in self.tensors:
            raise UserError(f"{self.path} holds {', '.join(list(self.tensors)[:8])}, but no `{name}`.")
        return shaped(self.path, name, self.tensors[name], *shape)

    def one_of(self, name: str, default: Any, known: Collection[Any]) -> Any:
        """A setting that changes the latents; UserError for a value that is not read here."""
        value = self.settings.get(name, default)
        if value not in known:
            raise UserError(
                f"{self.path} says {name}={value}, which changes the latents and is not read here; read are "
                f"{', '.join(map(str, known))}."
            )
        return value

    def only(self, *names: str) -> None:
        """Raises UserError for a tensor that is not among these; `dictionary.` stands for all that begin so."""
        for name in self.tensors:
            if name not in names and not name.startswith(tuple(n for n in names if n.endswith("."))):
                raise UserError(
                    f"{self.path} holds `{name}`, which is not read here and may change the latents. Read are "
                    f"{', '.join(names)}."
                )

    def k(self, latents: int, *names: str) -> int:
        """How many latents count: a tensor of one of the names, or a setting."""
        found = {name: int(self.tensors[name]) for name in names if name in self.tensors}
        found |= {f"the setting {name}": self.settings[name] for name in names if name in self.settings}
        values = {value for value in found.values() if isinstance(value, int) and not isinstance(value, bool)}
        if len(values) > 1:
            raise UserError(f"{self.path} says {' and '.join(f'{name}={value}' for name, value in found.items())}.")
        if not values:
            raise UserError(f"{self.path} is a TopK autoencoder by its settings, but nothing says its k.")
        return checked_k(self.path, values.pop(), latents)


def checked_k(path: Path, k: int, latents: int) -> int:
    """k, from 1 to the number of latents; UserError otherwise."""
    if not 1 <= k <= latents:
        raise UserError(f"{path}: k={k} of {latents} latents; it must be from 1 to {latents}.")
    return k


def shaped(path: Path, name: str, value: Tensor, *shape: int) -> Tensor:
    """The tensor; UserError where a shape is given and it has another one."""
    if shape and tuple(value.shape) != shape:
        raise UserError(f"{path}: `{name}` has shape {tuple(value.shape)}; expected {shape}.")
    return value


def _matrix(saved: Saved, name: str) -> Tensor:
    weight = saved.tensor(name)
    if weight.ndim != 2:
        raise UserError(f"{saved.path}: `{name}` has shape {tuple(weight.shape)}; expected a matrix.")
    return weight


def saev(saved: Saved) -> Dictionary:
    """saev: p = x W_enc + b_enc, b_dec is not subtracted; Relu, TopK (which may be negative) or BatchTopK.

    Raises:
        UserError: No line of JSON before the tensors, or one that says something else.
    """
    if saved.header is None:
        raise UserError(f"{saved.path} has no first line of JSON, as files of saev have; it tells the activation.")
    schema = saved.header.get("schema", 0)
    if schema not in range(6):
        raise UserError(f"{saved.path} is of schema {schema} of saev; read are 1 to 5 and files without one.")
    within = saved.header.get("cfg", saved.header).get("activation")
    activation = within["cls"] if isinstance(within, Mapping) and "cls" in within else saved.header.get("cls", "Relu")
    saved.only("W_enc", "b_enc", "W_dec", "b_dec", "activation.threshold")
    weight = _matrix(saved, "W_enc").T
    bias = saved.tensor("b_enc", len(weight))
    if activation in ("Relu", "SparseAutoencoderConfig"):
        return Dictionary(weight, bias)
    if activation == "TopK" or (
        activation == "BatchTopK" and schema <= 2 and "activation.threshold" not in saved.tensors
    ):
        return Dictionary(weight, bias, rectify=False, k=saved.k(len(weight), "top_k"))
    if activation == "BatchTopK":
        return Dictionary(weight, bias, threshold=saved.tensor("activation.threshold").reshape(()).clamp(min=0))
    raise UserError(f"{saved.path} has the activation {activation} of saev; read are Relu, TopK and BatchTopK.")


def saelens(saved: Saved) -> Dictionary:
    """SAELens: standard, topk, batchtopk, jumprelu and gated autoencoders, and the latents of transcoders."""
    kind = saved.one_of(
        "architecture",
        "standard",
        (
            *("standard", "topk", "batchtopk", "matryoshka_batchtopk", "jumprelu", "gated", "transcoder"),
            *("skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"),
        ),
    )
    norm = saved.one_of("normalize_activations", "none", ("none", "layer_norm", "constant_norm_rescale"))
    saved.one_of("reshape_activations", "none", ("none",))
    function = _function(saved)
    if function == "topk" and kind == "standard":
        kind = "topk"
    own = {"gated": ("b_gate", "r_mag", "b_mag"), "jumprelu": ("threshold",), "batchtopk": ("topk_threshold",)}
    more = next((names for name, names in own.items() if name in kind), ())
    saved.only("W_enc", *(() if kind == "gated" else ("b_enc",)), "W_dec", "b_dec", *more, *_skip(kind))
    weight = _matrix(saved, "W_enc").T
    transcodes = "transcoder" in kind
    subtracts = saved.one_of("apply_b_dec_to_input", not transcodes, (False,) if transcodes else (True, False))
    shift = saved.tensor("b_dec", weight.shape[1]) if subtracts else None
    bias = saved.tensor("b_enc", len(weight)) if kind != "gated" else None
    made: dict[str, Any] = {"shift": shift, "norm": norm}
    if saved.one_of("rescale_acts_by_decoder_norm", False, (True, False)):
        made["scale"] = saved.tensor("W_dec").float().norm(dim=1)
    if "jumprelu" in kind:
        return Dictionary(weight, bias, threshold=saved.tensor("threshold", len(weight)), **made)
    if "batchtopk" in kind:
        return Dictionary(weight, bias, threshold=_set_threshold(saved, "topk_threshold"), **made)
    if kind == "topk":
        return Dictionary(weight, bias, k=saved.k(len(weight), "k"), **made)
    if kind == "gated":
        return Dictionary(weight, gate=_gate(saved, len(weight), "b_gate", "r_mag", "b_mag"), **made)
    return Dictionary(weight, bias, rectify=function, **made)


def prisma(saved: Saved) -> Dictionary:
    """ViT-Prisma: standard and gated autoencoders with ReLU, TopK or tanh of ReLU, and the latents of transcoders."""
    kind = saved.one_of("architecture", "standard", ("standard", "gated"))
    norm = saved.one_of("normalize_activations", "none", ("none", "layer_norm", "constant_norm_rescale"))
    function = _function(saved)
    gated = kind == "gated" or "b_gate" in saved.tensors
    saved.only(
        "W_enc", "b_enc", "W_dec", "b_dec", "b_dec_out", "W_skip", *(("b_gate", "r_mag", "b_mag") if gated else ())
    )
    weight = _matrix(saved, "W_enc").T
    shift = saved.tensor("b_dec", weight.shape[1])
    if gated:
        return Dictionary(weight, shift=shift, norm=norm, gate=_gate(saved, len(weight), "b_gate", "r_mag", "b_mag"))
    bias = saved.tensor("b_enc", len(weight))
    if function == "topk":
        return Dictionary(weight, bias, shift, k=saved.k(len(weight), "k"), norm=norm)
    return Dictionary(weight, bias, shift, rectify=function, norm=norm)


def dictionary_learning(saved: Saved) -> Dictionary:
    """dictionary_learning and sae-for-vlm: the class is the JSON's `dict_class`, or what the tensors can only be.

    The loader of `AutoEncoder` gives its decoder's directions length 1 and the latents what they lose.
    """
    default = None if "dict_class" in saved.settings else _class_by_tensors(saved)
    return DICTIONARY_CLASSES[saved.one_of("dict_class", default, DICTIONARY_CLASSES)](saved)


def _class_by_tensors(saved: Saved) -> str:
    names = set(saved.tensors)
    known = {
        "AutoEncoder": {"encoder.weight", "encoder.bias", "decoder.weight", "bias"},
        "AutoEncoderNew": {"encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"},
        "GatedAutoEncoder": {
            *("encoder.weight", "decoder.weight", "decoder_bias", "r_mag", "gate_bias", "mag_bias"),
        },
        "JumpReluAutoEncoder": {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"},
        "MatroyshkaBatchTopKSAE": {"W_enc", "b_enc", "W_dec", "b_dec", "k", "threshold", "group_sizes"},
    }
    for kind, tensors in known.items():
        if names == tensors:
            return kind
    if names == {"encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "k", "threshold"}:
        raise UserError(
            f"{saved.path} may be an AutoEncoderTopK or a BatchTopKSAE, which its tensors do not tell: put "
            '{"dict_class": "AutoEncoderTopK"} (or "BatchTopKSAE") into config.json beside it.'
        )
    raise UserError(
        f"{saved.path} holds {', '.join(sorted(names)[:8])}, as no class of dictionary_learning does; read are "
        f"{', '.join(DICTIONARY_CLASSES)}."
    )


def _standard(saved: Saved) -> Dictionary:
    saved.only("encoder.weight", "encoder.bias", "decoder.weight", "bias")
    weight = _matrix(saved, "encoder.weight")
    scale = saved.tensor("decoder.weight", *weight.T.shape).float().norm(dim=0)
    bias, shift = saved.tensor("encoder.bias", len(weight)), saved.tensor("bias", weight.shape[1])
    return Dictionary(weight, bias, shift, scale=scale)


def _new(saved: Saved) -> Dictionary:
    saved.only("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
    weight = _matrix(saved, "encoder.weight")
    return Dictionary(weight, saved.tensor("encoder.bias", len(weight)))


def _top_k(saved: Saved) -> Dictionary:
    weight, bias, shift = _with_b_dec(saved)
    return Dictionary(weight, bias, shift, k=saved.k(len(weight), "k"))


def _batch_top_k(saved: Saved) -> Dictionary:
    weight, bias, shift = _with_b_dec(saved)
    return Dictionary(weight, bias, shift, threshold=_set_threshold(saved, "threshold"))


def _with_b_dec(saved: Saved) -> tuple[Tensor, Tensor, Tensor]:
    saved.only("encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "k", "threshold")
    weight = _matrix(saved, "encoder.weight")
    return weight, saved.tensor("encoder.bias", len(weight)), saved.tensor("b_dec", weight.shape[1])


def _matryoshka(saved: Saved) -> Dictionary:
    saved.only("W_enc", "b_enc", "W_dec", "b_dec", "k", "threshold", "group_sizes")
    weight = _matrix(saved, "W_enc").T
    bias, shift = saved.tensor("b_enc", len(weight)), saved.tensor("b_dec", weight.shape[1])
    return Dictionary(weight, bias, shift, threshold=_set_threshold(saved, "threshold"))


def _jump(saved: Saved) -> Dictionary:
    saved.only("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
    weight = _matrix(saved, "W_enc").T
    return Dictionary(weight, saved.tensor("b_enc", len(weight)), threshold=saved.tensor("threshold", len(weight)))


def _gated(saved: Saved) -> Dictionary:
    saved.only("encoder.weight", "decoder.weight", "decoder_bias", "r_mag", "gate_bias", "mag_bias")
    weight = _matrix(saved, "encoder.weight")
    gate = _gate(saved, len(weight), "gate_bias", "r_mag", "mag_bias")
    return Dictionary(weight, shift=saved.tensor("decoder_bias", weight.shape[1]), gate=gate)


DICTIONARY_CLASSES: dict[str, Callable[[Saved], Dictionary]] = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _new,
    "AutoEncoderTopK": _top_k,
    "BatchTopKSAE": _batch_top_k,
    "MatroyshkaBatchTopKSAE": _matryoshka,
    "MatryoshkaBatchTopKSAE": _matryoshka,
    "JumpReluAutoEncoder": _jump,
    "GatedAutoEncoder": _gated,
}
"""The classes of dictionary_learning that are read, by name; one of them is spelt so there."""


def overcomplete(saved: Saved) -> Dictionary:
    """overcomplete: autoencoders with its linear encoder, z = relu(W x + b), and TopK, BatchTopK, JumpReLU or neither.

    Raises:
        UserError: Another encoder (mlp_bn, attention, ...) or another class; or tensors alone of which nothing says
            what they are: a state dict does not hold the running threshold of BatchTopK.
    """
    saved.only("encoder.final_block.0.weight", "encoder.final_block.0.bias", "thresholds", "dictionary.")
    weight = _matrix(saved, "encoder.final_block.0.weight")
    bias = saved.tensor("encoder.final_block.0.bias", len(weight))
    names = {"standard": "SAE", "topk": "TopKSAE", "batchtopk": "BatchTopKSAE", "jumprelu": "JumpSAE"}
    kind = saved.whole.rsplit(".", 1)[-1].removeprefix("RA").replace("RelaxedArchetypal", "")
    if not kind:
        kind = names.get(str(saved.settings.get("architecture")), "")
    if kind == "JumpSAE" or (not kind and "thresholds" in saved.tensors):
        return Dictionary(weight, bias, threshold=saved.tensor("thresholds", len(weight)).float().exp())
    if kind == "TopKSAE":
        return Dictionary(weight, bias, k=saved.k(len(weight), "top_k", "k"))
    if kind == "BatchTopKSAE":
        threshold = saved.settings.get("running_threshold")
        if threshold is None:
            raise UserError(
                f"{saved.path} does not say the running threshold of its BatchTopK, which a state dict of overcomplete "
                'does not hold: save the module whole, or put {"running_threshold": ...} into config.json beside it.'
            )
        return Dictionary(weight, bias, threshold=torch.as_tensor(threshold, dtype=torch.float32))
    if kind == "SAE":
        return Dictionary(weight, bias)
    if kind:
        raise UserError(f"{saved.path} is a {kind} of overcomplete; read are {', '.join(names.values())}.")
    raise UserError(
        f"{saved.path} does not say which autoencoder of overcomplete it is: save the module whole, or put "
        f'{{"architecture": "topk", "top_k": 8}} (or {", ".join(names)}) into config.json beside it.'
    )


LAYOUTS: dict[str, Callable[[Saved], Dictionary]] = {
    "saev": saev,
    "saelens": saelens,
    "prisma": prisma,
    "dictionary_learning": dictionary_learning,
    "overcomplete": overcomplete,
}
"""Layout -> its reader."""
PLAIN = "plain"

_SAELENS = ("architecture", "apply_b_dec_to_input", "rescale_acts_by_decoder_norm", "d_sae", "normalize_activations")


def layout_of(saved: Saved) -> str:
    """The layout by what stands in a file and beside it; `plain` where nothing tells."""
    if saved.header is not None:
        return "saev"
    if saved.whole.startswith("overcomplete.") or "encoder.final_block.0.weight" in saved.tensors:
        return "overcomplete"
    if "dict_class" in saved.settings:
        return "dictionary_learning"
    if {"hook_point_layer", "layer_subtype"} & saved.settings.keys():
        return "prisma"
    return "saelens" if any(name in saved.settings for name in _SAELENS) else PLAIN


def check_layout(kind: str) -> str:
    """The name of a layout; UserError for an unknown one."""
    if kind not in (*LAYOUTS, PLAIN):
        raise unknown("layout of a dictionary (dictionary_kind=)", str(kind), (*LAYOUTS, PLAIN))
    return kind


def _function(saved: Saved) -> str:
    """The activation, relu, topk or tanh-relu, as SAELens and ViT-Prisma name it."""
    known = {"relu": "relu", "topk": "topk", "tanh-relu": "tanh-relu"}
    for name in ("activation_fn_str", "activation_fn"):
        if name in saved.settings:
            return known[saved.one_of(name, "relu", known)]
    return "relu"


def _skip(kind: str) -> Iterator[str]:
    """The tensors of a transcoder that only its output needs."""
    if "skip" in kind:
        yield "W_skip"


def _gate(saved: Saved, latents: int, bias: str, log_scale: str, magnitude: str) -> Gate:
    return Gate(*(saved.tensor(name, latents) for name in (bias, log_scale, magnitude)))


def _set_threshold(saved: Saved, name: str) -> Tensor:
    """The one threshold of a BatchTopK autoencoder; UserError for one that was never set."""
    threshold = saved.tensor(name).float().reshape(-1)
    if threshold.numel() != 1 or not float(threshold) >= 0:
        raise UserError(
            f"{saved.path}: `{name}` is {threshold.tolist()[:3]}; one number of at least 0 is needed: it was never set."
        )
    return threshold.reshape(())
