"""Dictionaries from every layout of file."""

import json

import pytest
import torch
from safetensors.torch import save_file

from neuronx.errors import UserError
from neuronx.targets.dictionary import load

M, D = 7, 4
W, B, S, T = torch.randn(M, D), torch.randn(M), torch.randn(D), torch.rand(M)


def jump(x: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    return torch.where(x > threshold, x, 0.0)


def largest(x: torch.Tensor, k: int) -> torch.Tensor:
    return torch.where(x >= x.sort(-1, descending=True).values[..., k - 1 : k], x, 0.0)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"encoder.weight": W, "encoder.bias": B}, lambda x: (x @ W.T + B).relu()),
        ({"encoder.weight": W}, lambda x: (x @ W.T).relu()),
        ({"W_enc": W.T.contiguous(), "b_enc": B, "b_dec": S}, lambda x: ((x - S) @ W.T + B).relu()),
        ({"encoder.weight": W, "encoder.bias": B, "decoder.bias": S}, lambda x: ((x - S) @ W.T + B).relu()),
        ({"directions": W}, lambda x: x @ W.T),
        ({"W_enc": W.T.contiguous(), "b_enc": B, "b_dec": 0 * S, "threshold": T}, lambda x: jump(x @ W.T + B, T)),
        ({"encoder.weight": W, "encoder.bias": B, "threshold": T[0]}, lambda x: jump(x @ W.T + B, T[0])),
        (
            {
                "encoder.weight": W,
                "encoder.bias": B,
                "decoder.weight": W.T.contiguous(),
                "b_dec": S,
                "k": torch.tensor(2),
            },
            lambda x: largest(((x - S) @ W.T + B).relu(), 2),
        ),
    ],
)
@pytest.mark.parametrize("shape", [(2, D), (2, 5, D), (2, 3, 6, D)])
def test_latents_follow_the_formula_at_every_position(tmp_path, state, expected, shape):
    save_file(state, tmp_path / "d.safetensors")
    dictionary = load(tmp_path / "d.safetensors")
    x = torch.randn(shape)
    given = x.movedim(-1, 1) if x.ndim == 4 else x
    latents = dictionary(given)
    latents = latents.movedim(1, -1) if x.ndim == 4 else latents
    torch.testing.assert_close(latents, expected(x), atol=1e-5, rtol=1e-4)


def test_two_dictionaries_are_two_identities(tmp_path):
    save_file({"directions": W}, tmp_path / "a.safetensors")
    save_file({"encoder.weight": W}, tmp_path / "b.safetensors")
    torch.save({"state_dict": {"encoder.weight": W}}, tmp_path / "c.pt")
    a, b, c = (load(tmp_path / name).digest for name in ("a.safetensors", "b.safetensors", "c.pt"))
    assert a != b == c


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"decoder.weight": W}, "holds decoder.weight; a dictionary needs encoder.weight"),
        ({"encoder.weight": W[0]}, "needs encoder.weight"),
        ({"encoder.weight": W, "encoder.bias": S}, r"the encoder bias has shape \(4,\); expected \(7,\)"),
        ({"directions": W, "b_dec": B}, r"the decoder bias has shape \(7,\); expected \(4,\)"),
    ],
)
def test_files_that_are_no_dictionaries(tmp_path, state, message):
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "d.safetensors")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "d.safetensors")


ENCODER = {"W_enc": W.T.contiguous(), "b_enc": B, "b_dec": S}


@pytest.mark.parametrize(
    "key", ["r_mag", "b_gate", "gate_bias", "mag_bias", "bias", "group_sizes", "log_threshold", "thresholds", "scale"]
)
def test_what_may_change_the_encoder_is_refused(tmp_path, key):
    save_file(ENCODER | {key: torch.ones(M)}, tmp_path / "d.safetensors")
    with pytest.raises(UserError, match=f"holds `{key}`, which is not read here and may change the latents"):
        load(tmp_path / "d.safetensors")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (ENCODER | {"threshold": T}, "does not say whether b_dec is subtracted"),
        (ENCODER | {"k": torch.tensor(2)}, "does not say whether b_dec is subtracted"),
        (ENCODER | {"k": torch.tensor(2), "threshold": T[0]}, "holds k and threshold"),
        ({"encoder.weight": W, "k": torch.tensor(9)}, "k=9 of 7 latents"),
        ({"encoder.weight": W, "k": torch.tensor([1, 2])}, "k must be one whole number"),
        ({"encoder.weight": W, "threshold": S}, r"`threshold` has shape \(4,\); expected \(7,\)"),
        ({"encoder.weight": W, "threshold": T - 5}, "threshold is below 0 or NaN"),
        ({"encoder.weight": W, "W_enc": W.clone()}, "both `encoder.weight` and `W_enc`"),
        ({"directions": W, "k": torch.tensor(2)}, "directions are plain projections"),
        ({"directions": W, "encoder.bias": B}, "directions are plain projections"),
    ],
)
def test_what_cannot_be_told_is_refused(tmp_path, state, says):
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "d.safetensors")
    with pytest.raises(UserError, match=says):
        load(tmp_path / "d.safetensors")


X = torch.randn(5, D)


@pytest.mark.parametrize(
    ("settings", "more", "expected"),
    [
        ({"architecture": "standard", "d_sae": M, "apply_b_dec_to_input": True}, {}, ((X - S) @ W.T + B).relu()),
        ({"architecture": "standard", "apply_b_dec_to_input": False}, {}, (X @ W.T + B).relu()),
        ({"architecture": "jumprelu", "apply_b_dec_to_input": False}, {"threshold": T}, jump(X @ W.T + B, T)),
        ({"architecture": "topk", "k": 3, "apply_b_dec_to_input": True}, {}, largest(((X - S) @ W.T + B).relu(), 3)),
        (
            {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "apply_b_dec_to_input": True},
            {},
            largest(((X - S) @ W.T + B).relu(), 3),
        ),
        ({"normalize_activations": "none", "rescale_acts_by_decoder_norm": False}, {}, ((X - S) @ W.T + B).relu()),
        ({"model_type": "vit", "hidden_size": 4}, {}, ((X - S) @ W.T + B).relu()),
        ({"architecture": "gated"}, {}, "holds `b_enc`, which is not read here"),
        ({"architecture": "temporal"}, {}, "says architecture=temporal, which changes the latents"),
        (
            {"normalize_activations": "constant_scalar_rescale"},
            {},
            "says normalize_activations=constant_scalar_rescale",
        ),
        ({"rescale_acts_by_decoder_norm": True}, {}, "no `W_dec`"),
        ({"trainer": {"dict_class": "AutoEncoderTopK"}}, {}, "holds `W_enc`, which is not read here"),
        ({"trainer": {"dict_class": "CrossCoder"}}, {}, "says dict_class=CrossCoder, which changes the latents"),
        ({"architecture": "topk"}, {}, "nothing says its k"),
        ({"architecture": "jumprelu"}, {}, "no `threshold`"),
        ({"k": 3}, {"k": torch.tensor(2)}, "k is 2 in the weights and 3 in the settings"),
    ],
)
@pytest.mark.parametrize("place", ["cfg.json", "config.json", "within"])
def test_settings_beside_the_weights_and_among_them_count(tmp_path, settings, more, expected, place):
    file = tmp_path / ("d.pt" if place == "within" else "d.safetensors")
    if place == "within":
        torch.save({"cfg": settings, "state_dict": ENCODER | more}, file)
    else:
        save_file(ENCODER | more, file)
        (tmp_path / place).write_text(json.dumps(settings))
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            load(file)
    else:
        torch.testing.assert_close(load(file)(X), expected, atol=1e-5, rtol=1e-4)


def test_a_number_beside_the_weights_and_what_a_safetensors_file_says_count(tmp_path):
    torch.save({"encoder.weight": W, "k": 2}, tmp_path / "d.pt")
    torch.testing.assert_close(load(tmp_path / "d.pt")(X), largest((X @ W.T).relu(), 2))
    save_file({"encoder.weight": W}, tmp_path / "d.safetensors", metadata={"activation": "tanh"})
    with pytest.raises(UserError, match="activation=tanh"):
        load(tmp_path / "d.safetensors")


def test_a_dictionary_without_latents_is_refused(tmp_path):
    save_file({"encoder.weight": torch.zeros(0, D)}, tmp_path / "sae.safetensors")
    with pytest.raises(UserError, match=r"The dictionary is empty: its encoder has the shape \(0, 4\)"):
        load(tmp_path / "sae.safetensors")
