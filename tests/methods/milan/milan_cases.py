"""Captioners with random weights in the published form, small or of the published size."""

from collections import OrderedDict

import torch
from oracles_milan import Weights

from neuronx.methods.milan.captioner import Captioner
from neuronx.methods.milan.networks import Decoder, LanguageModel, Vocabulary

WORDS = ("the", "a", "of", "dog", "-", ",", ".", "red", "and", "green", "cats", "striped", "surface", "'s")


def published_state(words=14, D=10, embedding=6, hidden=8, attention=None, lm=True, stop=1.0, scale=3.0):
    """Random tensors by the published names; a stop is `stop` more likely than its weights say."""
    n, attention = words + 4, attention or min(512, D)
    shapes = {
        "init_h.0": (hidden, D),
        "init_c.0": (hidden, D),
        "attend.query_to_hidden": (attention, hidden),
        "attend.key_to_hidden": (attention, D),
        "attend.output.0": (1, attention),
        "feature_gate.0": (D, hidden),
        "output.1": (n, hidden),
    }
    if lm:
        shapes["lm.output.0"] = (n, hidden)
    generator = torch.Generator().manual_seed(5)
    state = {}
    for name, (out, size) in shapes.items():
        state[f"{name}.weight"] = torch.randn(out, size, generator=generator) * size**-0.5
        state[f"{name}.bias"] = torch.randn(out, generator=generator) * 0.1
    cells = {"lstm.{}": embedding + D}
    if lm:
        cells |= {"lm.lstm.{}_l0": embedding, "lm.lstm.{}_l1": hidden}
    for name, size in cells.items():
        state[name.format("weight_ih")] = torch.randn(4 * hidden, size, generator=generator) * size**-0.5
        state[name.format("weight_hh")] = torch.randn(4 * hidden, hidden, generator=generator) * hidden**-0.5
        for bias in ("bias_ih", "bias_hh"):
            state[name.format(bias)] = torch.randn(4 * hidden, generator=generator) * 0.1
    state["embedding.weight"] = torch.randn(n, embedding, generator=generator)
    for output in ["output.1"] + ["lm.output.0"] * lm:  # decided enough that no two captions score alike
        state[f"{output}.weight"] *= scale
        state[f"{output}.bias"][words + 1] += stop
    if lm:
        state["lm.embedding.weight"] = torch.randn(n, embedding, generator=generator)
        state["lm.embedding.weight"][words + 2] = 0
    return state


def captioner(state, words=WORDS, **options):
    """Ours with those tensors."""
    from neuronx.methods.milan import published

    D, hidden = state["feature_gate.0.weight"].shape
    embedding = state["embedding.weight"].shape[1]
    decoder = Decoder(len(words), D, embedding, hidden)
    published._fill(decoder, state, published._DECODER, "test")
    lm = None
    if "lm.embedding.weight" in state:
        lm = LanguageModel(len(words), embedding, hidden)
        published._fill(lm, state, published._LANGUAGE_MODEL, "test")
    return Captioner(Vocabulary(words), decoder, lm, **options)


def features(units=3, k=4, D=10, seed=0):
    return torch.randn(units, k, D, generator=torch.Generator().manual_seed(seed)).relu()


def oracle(state, words=WORDS):
    return Weights(state, len(words))


def container(state, words=WORDS, encoder="resnet18", lm_words=None, backbone=None):
    """The published payload around those tensors, with spaCy's pickled configuration in its place."""
    import spacy

    nlp = spacy.blank("en")
    flags = {"lemmatize": False, "lowercase": True, "ignore_stop": False, "ignore_punct": False}

    def indexer(tokens):
        parts = {
            "vocab": {"properties": {"tokens": tuple(tokens)}, "children": {}},
            "tokenize": {"properties": {"nlp": (nlp.config, nlp.to_bytes()), **flags}, "children": {}},
        }
        marks = {"start": True, "stop": True, "pad": True, "unk": True, "length": None}
        return {"properties": {**parts, **marks}, "children": {}}

    embedding, hidden = state["embedding.weight"].shape[1], state["output.1.weight"].shape[1]
    sizes = {"embedding_size": embedding, "hidden_size": hidden, "dropout": 0.5}
    lm = {"properties": {"indexer": indexer(lm_words or words), "layers": 2, **sizes}, "children": {}}
    properties = {
        "indexer": indexer(words),
        "encoder": {"properties": {"config": encoder, "pretrained": True}, "children": {}},
        "lm": lm if "lm.embedding.weight" in state else None,
        **sizes,
        "attention_hidden_size": None,
        "length": 15,
        "strategy": "rerank" if "lm.embedding.weight" in state else "beam",
        "temperature": 0.2,
        "beam_size": 50,
    }
    tensors = OrderedDict(state)
    tensors["encoder.mean"] = tensors["encoder.std"] = torch.ones(1, 3, 1, 1)
    for name, value in (backbone or {}).items():
        tensors[f"encoder.encoder.model.{name}"] = value
    return {"properties": properties, "children": {"encoder": "PyramidConvEncoder"}, "state_dict": tensors}
