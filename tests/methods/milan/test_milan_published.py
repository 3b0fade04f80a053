import dataclasses
import os

import numpy as np
import oracles_milan as oracle
import pytest
import torch
import torchvision
from milan_cases import WORDS, container, features, published_state
from milan_cases import oracle as weights_of

import neuronx
from neuronx.errors import UserError
from neuronx.methods.milan.method import Milan
from neuronx.methods.milan.published import BEAM, KEYS, URL, published_file, read_published
from neuronx.targets.preprocess import IMAGENET_MEAN, IMAGENET_STD
from neuronx.world.clip import ShapesClip

D = 1024


@pytest.fixture(scope="module")
def state():
    return published_state(D=D, embedding=6, hidden=8)


@pytest.fixture
def write(tmp_path):
    def write(payload, name="milan-base.pth"):
        torch.save(payload, tmp_path / name)
        return tmp_path / name

    return write


def test_a_published_file_gives_the_oracles_captions(state, write):
    backbone = {"conv1.weight": torch.randn(2, 3), "bn1.running_mean": torch.ones(2), "fc.weight": torch.ones(3, 3)}
    found = read_published(write(container(state, backbone=backbone)))
    model, weights, v = found.captioner, weights_of(state), features(2, D=D)
    assert found.encoder == "resnet18"
    assert {name: value.shape for name, value in found.backbone.items()} == {
        "conv1.weight": (2, 3),
        "bn1.running_mean": (2,),
    }
    assert (model.strategy, model.temperature, model.beam_size, model.length) == ("rerank", 0.2, 50, 15)
    assert model.vocabulary.words == WORDS and not model.training
    best = model(v, beam_size=6, length=5)
    for i, one in enumerate(v.double().numpy()):
        kept = oracle.beam(weights, one, 6, 5)
        chosen = int(np.argmax(oracle.rerank(weights, kept, 0.2)))
        assert best.captions[i] == model.vocabulary.sentence(kept[chosen][0])
        tokens = kept[chosen][0]
        outputs, _ = model.decoder(v[i : i + 1], torch.tensor([tokens]))
        log_p = model.decoder.predict(outputs)[0].log_softmax(-1)
        np.testing.assert_allclose(log_p.detach(), oracle.follow(weights, one, tokens)[0], atol=1e-5)


def test_a_captioner_without_a_language_model_is_read(write):
    found = read_published(write(container(published_state(D=D, lm=False))))
    assert found.captioner.language_model is None and found.captioner.strategy == "beam"


def test_a_language_model_of_other_words_is_refused(state, write):
    other = (WORDS[1], WORDS[0], *WORDS[2:])
    with pytest.raises(UserError, match="words of the language model are not the decoder's, or not in their order"):
        read_published(write(container(state, lm_words=other)))


def test_an_encoder_of_another_size_is_refused(state, write):
    with pytest.raises(UserError, match=r"init_h\.0\.weight has shape \(8, 1024\).*needs \(8, 3904\)"):
        read_published(write(container(state, encoder="resnet101")))
    with pytest.raises(UserError, match=r"There is no encoder `resnet19`\. Nearest: resnet1"):
        read_published(write(container(state, encoder="resnet19")))


def test_missing_parts_are_named(state, write):
    payload = container(state)
    del payload["state_dict"]["lm.lstm.weight_hh_l1"]
    with pytest.raises(UserError, match=r"lm\.lstm\.weight_hh_l1 is missing"):
        read_published(write(payload))
    with pytest.raises(UserError, match=r"is not a captioner of MILAN \(KeyError: 'properties'\)"):
        read_published(write({"state_dict": state}))
    with pytest.raises(UserError, match="is not a captioner of MILAN"):
        read_published(write([1, 2]))
    payload = container(state)
    payload["properties"]["indexer"]["properties"]["vocab"]["properties"]["tokens"] = None
    with pytest.raises(UserError, match="is not a captioner of MILAN"):
        read_published(write(payload))


def test_foreign_code_in_it_is_refused(state, write):
    class Foreign:
        def __reduce__(self):
            return os.system, ("true",)

    payload = container(state)
    payload["properties"]["lm"]["properties"]["hook"] = Foreign()
    with pytest.raises(UserError, match=r"would run code of its own, (posix|nt)\.system"):
        read_published(write(payload))


def test_every_key_has_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("NEURONX_DATA", str(tmp_path))
    assert len(KEYS) == 8
    for key in KEYS:
        (tmp_path / "milan").mkdir(exist_ok=True)
        (tmp_path / "milan" / f"milan-{key}.pth").write_bytes(b"there already")
        assert published_file("published", key) == tmp_path / "milan" / f"milan-{key}.pth"
    assert URL.format(key="gen") == "http://milan.csail.mit.edu/models/milan-gen.pth"
    assert published_file("~/mine.pth").name == "mine.pth"
    with pytest.raises(UserError, match=r"no published captioner `bas`\. Nearest: base"):
        published_file("published", "bas")


def test_without_a_network_the_way_round_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("neuronx.methods.milan.published.URL", "http://127.0.0.1:9/milan-{key}.pth")
    monkeypatch.setenv("NEURONX_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"put the file at .*milan-cls\.pth or set milan\.weights=FILE"):
        published_file("published", "cls")


def spatial(write):
    network = torchvision.models.resnet18()
    payload = container(published_state(D=512), backbone=network.state_dict())
    payload["children"]["encoder"] = "SpatialConvEncoder"
    return write(payload), network.eval()


def test_the_spatial_encoder_gives_a_vector_for_each_of_49_places(write):
    path, network = spatial(write)
    describer = neuronx.milan.pretrained(path)
    images, masks = torch.rand(2, 3, 3, 224, 224), torch.zeros(2, 3, 1, 224, 224)
    masks[..., 50:120, 30:200] = 1
    found = describer.features(images, masks)
    assert found.shape == (2, 3 * 49, 512) and describer.encoder.size == 512
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    trunk = torch.nn.Sequential(*list(network.children())[:-2])
    with torch.no_grad():
        expected = trunk((images[1] - mean) / std * masks[1]).permute(0, 2, 3, 1).reshape(-1, 512)
    torch.testing.assert_close(found[1], expected, atol=1e-4, rtol=1e-3)
    assert len(describer(images, masks, beam_size=3, length=4).captions) == 2


def test_a_clip_chooses_as_published(write, tmp_path, monkeypatch):
    monkeypatch.setenv("NEURONX_DATA", str(tmp_path))
    (tmp_path / "milan").mkdir()
    path, _ = spatial(write)
    path.rename(tmp_path / "milan" / "milan-base.pth")
    describer = neuronx.milan.pretrained("base+clip")
    captioner = describer.captioner
    assert (captioner.strategy, captioner.temperature, BEAM) == ("beam", 0.5, 1000)
    assert captioner.beam_size == captioner.decoder.specials.size  # a thousand where there are so many words
    assert (describer.clip.model, describer.clip.pretrained) == ("ViT-B-32", "openai")
    clip = ShapesClip(pretrained="shapes_explainer")
    describer = dataclasses.replace(describer, clip=clip)
    images = torch.randint(0, 256, (2, 3, 3, 64, 64), dtype=torch.uint8)
    masks = torch.ones(2, 3, 1, 64, 64)
    chosen = describer(images, masks, length=3)
    beams = dataclasses.replace(describer, clip=None)(images, masks, length=3).beams
    tower, transform = clip.encoder.model.visual.eval(), clip.encoder.transform
    for unit, caption in enumerate(chosen.captions):
        texts = [captioner.vocabulary.sentence(row.tolist()) for row in beams.tokens[unit]]
        with torch.no_grad():
            seen = torch.nn.functional.normalize(tower(transform(images[unit])), dim=-1)
        cosines = (seen @ clip.embed_texts(texts).T).mean(0)
        spoken = torch.tensor([bool(text) for text in texts])  # one without words is the last choice
        assert cosines[texts.index(caption)] > cosines[spoken].max() - 1e-3
    with pytest.raises(UserError, match="chooses among a beam"):
        describer(images, masks, strategy="greedy")
    method = Milan("published", "base+clip")
    assert method.clip.model == "ViT-B-32" and method.options["strategy"] == "beam" and not method.masked


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["resnet101", "resnet18"])
def test_files_of_the_published_size_are_read(write, encoder):
    words = tuple(f"word{i}" for i in range(5000))
    D = {"resnet101": 3904, "resnet18": 1024}[encoder]
    network = getattr(torchvision.models, encoder)()
    state = published_state(5000, D, 128, 512, scale=8.0)
    payload = container(state, words, encoder, backbone=network.state_dict())
    if encoder == "resnet101":
        assert len(payload["state_dict"]) == 658
    found = read_published(write(payload))
    del payload
    assert sum(p.numel() for p in found.captioner.language_model.parameters()) == 3_416_064 + 641 * 5004
    if encoder == "resnet101":
        assert sum(p.numel() for p in found.captioner.decoder.parameters()) == 17_574_209 + 641 * 5004
    missing = network.load_state_dict(found.backbone, strict=False)
    assert missing.missing_keys == ["fc.weight", "fc.bias"] and not missing.unexpected_keys
    weights, v = weights_of(state, words), features(2, 15, D)
    tokens = found.captioner(v, "greedy", pmi=False, length=5).tokens
    for i, one in enumerate(v.double().numpy()):
        expected = oracle.greedy(weights, one, 5)
        assert tokens[i, : len(expected)].tolist() == expected
        outputs, _ = found.captioner.decoder(v[i : i + 1], tokens[i : i + 1])
        log_p = found.captioner.decoder.predict(outputs)[0].log_softmax(-1)
        np.testing.assert_allclose(log_p.detach(), oracle.follow(weights, one, tokens[i].tolist())[0], atol=1e-5)
        kept = oracle.beam(weights, one, 3, 3)
        found_beam = found.captioner(v[i : i + 1], "beam", pmi=False, beam_size=3, length=3).beams
        assert found_beam.tokens[0].tolist() == [tokens for tokens, _ in kept]
