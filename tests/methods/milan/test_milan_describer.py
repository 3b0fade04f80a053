import json

import pytest
import torch
from milan_cases import WORDS, container, published_state

import neuronx
from neuronx import checkpoints
from neuronx.errors import UserError
from neuronx.methods.milan import describer
from neuronx.methods.milan.captioner import Captioner
from neuronx.methods.milan.networks import Decoder, LanguageModel, Vocabulary

D = 224


def captioner(words=WORDS, lm=True, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = Decoder(len(words), D, 6, 8)
        decoder.output.bias.data[len(words) :] -= 5  # captions are of words
        model = LanguageModel(len(words), 6, 8) if lm else None
        return Captioner(Vocabulary(words), decoder, model, beam_size=5, length=6)


def write(folder, model, how, **facts):
    model.load_state_dict(checkpoints.rounded(model.state_dict()))
    card = {
        "about": "A captioner.",
        "command": "",
        "training": {},
        "figures": {},
        **describer.card(model, how),
        **facts,
    }
    return checkpoints.write(folder, "words", model.state_dict(), card)


@pytest.fixture(scope="module")
def small():
    return describer.encoder_of("shapes_resnet")


def exemplars(units=2, k=3, side=64):
    chance = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (units, k, 3, side, side), dtype=torch.uint8, generator=chance)
    return images, torch.randint(0, 2, (units, k, 1, side, side), dtype=torch.uint8, generator=chance)


@pytest.mark.parametrize("lm", [True, False])
def test_what_is_written_is_read_back(tmp_path, small, lm):
    model = captioner(lm=lm)
    path = write(tmp_path, model, small, domain="shapes")
    found = neuronx.milan.pretrained(path)
    images, masks = exemplars()
    told = found(images, masks)
    assert found.name == "words" and found.domain == "shapes" and not found.published
    assert found.encoder.identity == small.identity
    with torch.inference_mode():
        features = small(images.flatten(0, 1), masks.flatten(0, 1)).unflatten(0, (2, 3))
    assert told.captions == model.eval()(features).captions
    assert torch.equal(found(images[1], masks[1]).tokens[0], found(images[1:], masks[1:]).tokens[0])
    assert found(images).scores.shape == (2,) and found(images, masks, strategy="greedy").beams is None


def test_published_captioners_describe_pictures_as_published(tmp_path):
    module = describer.torchvision.load("resnet18", "random").module
    backbone = {name: value for name, value in module.state_dict().items() if not name.startswith("fc.")}
    state = published_state(D=1024, embedding=6, hidden=8)
    torch.save(container(state, backbone=backbone), tmp_path / "milan.pth")
    found = describer.load(tmp_path / "milan.pth")
    assert found.published and found.encoder.published_masks and found.domain == "natural"
    assert torch.equal(found.encoder.target.module.conv1.weight, module.conv1.weight)
    images, masks = exemplars(side=64)
    told = found(images, masks, beam_size=4, length=5)
    features = found.features(images, masks)
    own = found.captioner(features, beam_size=4, length=5, published_lm_score=True)
    assert told.captions == own.captions and torch.equal(told.scores, own.scores)
    with pytest.raises(UserError, match=r"shapes_resnet gives 224 features and the captioner milan takes 1024"):
        describer.load(tmp_path / "milan.pth", encoder="shapes_resnet")


def test_mistakes_are_said(tmp_path, small):
    path = write(tmp_path, captioner(), small)
    card = json.loads(path.with_suffix(".json").read_text())
    images, masks = exemplars()
    with pytest.raises(UserError, match="masks"):
        describer.load(path)(images, masks[:1])
    with pytest.raises(UserError, match="images"):
        describer.load(path)(images[0, 0])
    for change, line in (
        ({"network": "nobodys_net"}, "nobodys_net, which is not here: give it with milan.encoder"),
        ({"digest": "0"}, "other weights of the encoder shapes_resnet"),
    ):
        path.with_suffix(".json").write_text(json.dumps(card | {"encoder": card["encoder"] | change}))
        with pytest.raises(UserError, match=line):
            describer.load(path)
        assert describer.load(path, encoder=small).encoder is small
    path.with_suffix(".json").write_text(json.dumps(card | {"words": card["words"][1:]}))
    with pytest.raises(UserError, match="do not fit their card"):
        describer.load(path)
    with pytest.raises(UserError, match=r"shapes_resnet\.safetensors describes no captioner"):
        describer.load("shapes_resnet")
    with pytest.raises(UserError, match="no trained part `milan_bse`"):
        describer.load("milan_bse")
    with pytest.raises(UserError, match="no captioner file"):
        describer.load(tmp_path / "nothing.pth")
