"""Sparse autoencoders as their libraries save them, against each library's own formula."""

import io
import json
import sys
import types

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from neuronx.errors import UserError
from neuronx.recording.maps import pooled, pooled_latents
from neuronx.targets import encoder
from neuronx.targets.dictionary import load
from neuronx.targets.encoder import Dictionary, Gate

D, M = 6, 11
G = torch.Generator().manual_seed(3)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=G)


X, W, B, S, DEC = draw(40, D), draw(M, D), draw(M), draw(D), draw(M, D)
T, GATE, LOG, MAG, ONE = draw(M).abs(), draw(M), 0.3 * draw(M), draw(M), torch.tensor(0.4)
ENC = {"W_enc": W.T.contiguous(), "b_enc": B, "W_dec": DEC, "b_dec": S}
LINEAR = {"encoder.weight": W, "encoder.bias": B, "decoder.weight": DEC.T.contiguous()}
B_DEC = LINEAR | {"b_dec": S, "k": torch.tensor(3), "threshold": ONE}
GATED = {"W_enc": W.T.contiguous(), "b_gate": GATE, "r_mag": LOG, "b_mag": MAG, "W_dec": DEC, "b_dec": S}


def top(p: Tensor, k: int) -> Tensor:
    return torch.zeros_like(p).scatter(-1, p.topk(k).indices, p.topk(k).values)


def over(p: Tensor, threshold: Tensor) -> Tensor:
    return p.relu() * (p > threshold)


def gated(e: Tensor) -> Tensor:
    return (e + GATE > 0) * (LOG.exp() * e + MAG).relu()


def layer_norm(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5)


def same_length(x: Tensor) -> Tensor:
    return x * D**0.5 / x.norm(dim=-1, keepdim=True)


def saved_saev(file, header: dict, state: dict) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    file.write_bytes(json.dumps(header).encode() + b"\n" + content.getvalue())


def header_of(schema: int, name: str, **params: int) -> dict:
    config = {"d_model": D, "d_sae": M, "activation": {"cls": name, "params": params}}
    return {"schema": schema, "cfg": config, "commit": "abc", "lib": "0.1"}


@pytest.mark.parametrize(
    ("header", "state", "expected"),
    [
        (header_of(5, "Relu"), ENC, (X @ W.T + B).relu()),
        (header_of(5, "TopK", top_k=9), ENC, top(X @ W.T + B, 9)),
        (header_of(5, "BatchTopK", top_k=3), ENC | {"activation.threshold": ONE}, over(X @ W.T + B, ONE)),
        (header_of(2, "BatchTopK", top_k=3), ENC, top(X @ W.T + B, 3)),
        ({"schema": 1, "cls": "TopK", "cfg": {"d_vit": D, "top_k": 4}}, ENC, top(X @ W.T + B, 4)),
        (header_of(1, "TopK", top_k=4) | {"cls": "SparseAutoencoderConfig"}, ENC, top(X @ W.T + B, 4)),
        ({"d_vit": D, "exp_factor": 2, "l1_coeff": 0.1}, ENC, (X @ W.T + B).relu()),
    ],
)
def test_saev(tmp_path, header, state, expected):
    saved_saev(tmp_path / "sae.pt", header, state)
    for path in (tmp_path / "sae.pt", tmp_path):
        torch.testing.assert_close(load(path)(X), expected, atol=1e-5, rtol=1e-5)


E = (X - S) @ W.T
PLAIN = {"d_in": D, "d_sae": M, "dtype": "float32", "metadata": {"hook_name": "blocks.3", "model_name": "vit"}}


@pytest.mark.parametrize(
    ("settings", "state", "expected"),
    [
        ({"architecture": "standard"}, ENC, (E + B).relu()),
        ({"architecture": "standard", "apply_b_dec_to_input": False}, ENC, (X @ W.T + B).relu()),
        (
            {"architecture": "standard", "normalize_activations": "layer_norm"},
            ENC,
            ((layer_norm(X) - S) @ W.T + B).relu(),
        ),
        (
            {"architecture": "standard", "normalize_activations": "constant_norm_rescale"},
            ENC,
            ((same_length(X) - S) @ W.T + B).relu(),
        ),
        ({"architecture": "topk", "k": 3}, ENC, top((E + B).relu(), 3)),
        (
            {"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": True},
            ENC,
            top(((E + B) * DEC.norm(dim=1)).relu(), 3),
        ),
        ({"architecture": "batchtopk", "k": 3}, ENC | {"topk_threshold": ONE}, over(E + B, ONE)),
        ({"architecture": "jumprelu", "apply_b_dec_to_input": False}, ENC | {"threshold": T}, over(X @ W.T + B, T)),
        ({"architecture": "gated"}, GATED, gated(E)),
        ({"architecture": "transcoder", "apply_b_dec_to_input": False}, ENC | {"b_dec": draw(9)}, (X @ W.T + B).relu()),
        (
            {"architecture": "jumprelu_skip_transcoder", "apply_b_dec_to_input": False},
            ENC | {"threshold": T, "W_skip": draw(9, D)},
            over(X @ W.T + B, T),
        ),
    ],
)
def test_saelens(tmp_path, settings, state, expected):
    save_file(state, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps(PLAIN | settings))
    torch.testing.assert_close(load(tmp_path)(X), expected, atol=1e-5, rtol=1e-5)


class Config:
    """Stands for ViT-Prisma's configuration, which older files hold pickled."""

    def __init__(self, **settings):
        self.__dict__.update(settings)


PRISMA = {"hook_point_layer": 3, "layer_subtype": "hook_resid_post", "normalize_activations": "layer_norm"}
NORMED = (layer_norm(X) - S) @ W.T


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    ("settings", "state", "expected"),
    [
        ({"activation_fn_str": "relu"}, ENC, (NORMED + B).relu()),
        ({"activation_fn_str": "relu", "normalize_activations": "none"}, ENC, (E + B).relu()),
        ({"activation_fn_str": "tanh-relu"}, ENC, (NORMED + B).relu().tanh()),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}, ENC, top((NORMED + B).relu(), 4)),
        ({"architecture": "gated"}, GATED | {"b_enc": B}, gated(NORMED)),
        ({"activation_fn_str": "relu", "is_transcoder": True}, ENC | {"b_dec_out": draw(9)}, (NORMED + B).relu()),
    ],
)
def test_prisma(tmp_path, settings, state, expected, pickled):
    if pickled:
        torch.save({"cfg": Config(**PRISMA | settings), "state_dict": state}, tmp_path / "weights.pt")
    else:
        torch.save(state, tmp_path / "weights.pt")
        (tmp_path / "config.json").write_text(json.dumps(PRISMA | settings))
    torch.testing.assert_close(load(tmp_path / "weights.pt")(X), expected, atol=1e-5, rtol=1e-5)


LONG = DEC.norm(dim=1)


@pytest.mark.parametrize(
    ("name", "state", "expected"),
    [
        ("AutoEncoder", LINEAR | {"bias": S}, (E + B).relu() * LONG),
        ("AutoEncoderTopK", B_DEC, top((E + B).relu(), 3)),
        ("BatchTopKSAE", B_DEC, over(E + B, ONE)),
        (
            "MatroyshkaBatchTopKSAE",
            ENC | {"k": torch.tensor(3), "threshold": ONE, "group_sizes": torch.tensor([4, 7])},
            over(E + B, ONE),
        ),
        ("JumpReluAutoEncoder", ENC | {"threshold": T}, over(X @ W.T + B, T)),
        (
            "GatedAutoEncoder",
            {
                "encoder.weight": W,
                "decoder.weight": DEC.T.contiguous(),
                "decoder_bias": S,
                "r_mag": LOG,
                "gate_bias": GATE,
                "mag_bias": MAG,
            },
            gated(E),
        ),
    ],
)
def test_dictionary_learning(tmp_path, name, state, expected):
    torch.save(state, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": name, "k": 3}, "buffer": {"d": 6}}))
    torch.testing.assert_close(load(tmp_path / "ae.pt")(X), expected, atol=1e-5, rtol=1e-5)
    (tmp_path / "config.json").unlink()
    if name in ("AutoEncoderTopK", "BatchTopKSAE"):
        with pytest.raises(UserError, match="may be an AutoEncoderTopK or a BatchTopKSAE"):
            load(tmp_path / "ae.pt", "dictionary_learning")
    else:
        torch.testing.assert_close(load(tmp_path, "dictionary_learning")(X), expected, atol=1e-5, rtol=1e-5)
        with pytest.raises(UserError, match="dictionary_kind="):
            load(tmp_path)


PRE = (X @ W.T + B).relu()


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("SAE", {}, PRE),
        ("TopKSAE", {"top_k": 3}, top(PRE, 3)),
        ("RATopKSAE", {"top_k": 3}, top(PRE, 3)),
        ("BatchTopKSAE", {"top_k": 3, "running_threshold": ONE}, over(PRE, ONE)),
        ("JumpSAE", {}, over(PRE, T)),
        ("MpSAE", {}, "MpSAE of overcomplete"),
    ],
)
def test_overcomplete_saved_whole(tmp_path, monkeypatch, name, more, expected):
    package = types.ModuleType("overcomplete")
    monkeypatch.setitem(sys.modules, "overcomplete", package)
    kind = type(name, (nn.Module,), {"__module__": "overcomplete"})
    monkeypatch.setattr(package, name, kind, raising=False)
    model, linear = kind(), nn.Linear(D, M)
    linear.weight.data, linear.bias.data = W.clone(), B.clone()
    model.encoder, model.dictionary = nn.Module(), nn.Module()
    model.encoder.final_block = nn.Sequential(linear, nn.Identity(), nn.ReLU())
    model.dictionary._weights = nn.Parameter(DEC.clone())
    if name == "JumpSAE":
        model.thresholds = nn.Parameter(T.log())
    model.__dict__.update(more)
    torch.save(model, tmp_path / "model.pt")
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            load(tmp_path / "model.pt")
    else:
        torch.testing.assert_close(load(tmp_path / "model.pt")(X), expected, atol=1e-5, rtol=1e-5)


def test_the_tensors_of_overcomplete_alone_do_not_tell_the_class(tmp_path):
    state = {"encoder.final_block.0.weight": W, "encoder.final_block.0.bias": B, "dictionary._weights": DEC}
    torch.save(state, tmp_path / "sae.pt")
    with pytest.raises(UserError, match="which autoencoder of overcomplete it is"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "topk", "top_k": 3}))
    torch.testing.assert_close(load(tmp_path)(X), top(PRE, 3), atol=1e-5, rtol=1e-5)
    torch.save(state | {"encoder.final_block.1.running_mean": B}, tmp_path / "sae.pt")
    with pytest.raises(UserError, match=r"holds `encoder.final_block.1.running_mean`, which is not read here"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("kind", "state", "says"),
    [
        ("saev", ENC, "no first line of JSON"),
        ("saelens", ENC | {"scaling": ONE}, "holds `scaling`"),
        ("prisma", {"W_enc": W.T.contiguous(), "b_enc": B}, "no `b_dec`"),
        ("dictionary_learning", ENC, "as no class of dictionary_learning does"),
        ("dictionary_learning", B_DEC | {"bias": S}, "as no class of dictionary_learning does"),
        ("sealens", ENC, "Did you mean|saelens"),
        ("saelens", ENC | {"b_enc": S}, r"`b_enc` has shape \(6,\); expected \(11,\)"),
    ],
)
def test_what_a_library_does_not_write_is_refused(tmp_path, kind, state, says):
    torch.save(state, tmp_path / "sae.pt")
    with pytest.raises(UserError, match=says):
        load(tmp_path / "sae.pt", kind)


def test_a_threshold_that_was_never_set_is_refused(tmp_path):
    torch.save(B_DEC | {"threshold": torch.tensor(-1.0)}, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "BatchTopKSAE"}}))
    with pytest.raises(UserError, match="it was never set"):
        load(tmp_path)


def test_a_folder_of_several_files_of_weights_is_refused(tmp_path):
    for name in ("a.pt", "b.pt"):
        torch.save(ENC, tmp_path / name)
    with pytest.raises(UserError, match=r"should hold one file of weights.*a.pt, b.pt"):
        load(tmp_path)


@pytest.mark.parametrize("how", ["avg", "max"])
@pytest.mark.parametrize("shape", [(5, 7, D), (5, D, 3, 4)])
@pytest.mark.parametrize("size", [3 * M, 40 * M, 2**20])
def test_pooling_in_slices_is_pooling(monkeypatch, how, shape, size):
    monkeypatch.setattr(encoder, "SLICE", size)
    dictionary = Dictionary(W, B, S, k=2, gate=Gate(GATE, LOG, MAG))
    output = draw(*shape)
    torch.testing.assert_close(dictionary.pooled(output, how), pooled(dictionary(output), how))


def test_each_choice_is_part_of_the_identity():
    made = [Dictionary(W), Dictionary(W, norm="layer_norm"), Dictionary(W, scale=T), Dictionary(W, k=2)]
    made += [Dictionary(W, gate=Gate(GATE, LOG, MAG)), Dictionary(W, rectify="tanh-relu")]
    assert len({dictionary.digest for dictionary in made}) == len(made)


@pytest.mark.parametrize(("how", "positions"), [("first", 1), ("patch", 4), ("avg", 5), ("max", 5)])
def test_only_the_positions_that_count_are_encoded(monkeypatch, how, positions):
    dictionary, seen = Dictionary(W, B, S, k=2), []
    encode = dictionary._encoded
    monkeypatch.setattr(dictionary, "_encoded", lambda x: seen.append(x.numel() // D) or encode(x))
    tokens = draw(3, 5, D)
    found = pooled_latents(tokens, how, dictionary, 1)
    assert sum(seen) == 3 * positions
    torch.testing.assert_close(found, pooled(dictionary(tokens), how, 1))
