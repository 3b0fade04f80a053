import sys
from pathlib import Path

import pytest
import torch
from test_milan_describer import captioner

from neuronx.concepts.clip import Clip
from neuronx.data.shapes.probe import ShapesProbe
from neuronx.errors import Unsuitable, UserError
from neuronx.methods.milan import encoder
from neuronx.methods.milan.describer import Describer
from neuronx.methods.milan.method import Milan, most_similar
from neuronx.recording.exemplars import find_exemplars
from neuronx.targets import shapes

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import oracles_milannotations as oracle  # noqa: E402

PHRASES = ("red", "green", "blue", "circle", "square", "star", "grass", "sky", "sand", "striped")


@pytest.fixture(scope="module")
def describer():
    return Describer(captioner(PHRASES).eval(), encoder.load("shapes_resnet"), "test", domain="shapes")


@pytest.fixture(scope="module")
def target():
    return shapes.load("shapes_resnet", layers=["layer4", "fc"])


@pytest.fixture(scope="module")
def probe():
    return ShapesProbe(60, 3)


def test_units_are_described_by_their_exemplars(describer, target, probe, trainer):
    some = target.select(units=[1, 5, 9])
    found = Milan(describer, k=4).explain(some, probe, trainer)
    assert [(one.unit.layer, one.unit.index) for one in found] == [
        (layer, i) for layer in ("layer4", "fc") for i in (1, 5, 9)
    ]
    exemplars = find_exemplars(target, probe, trainer, k=4)
    for one in found:
        mine = exemplars[one.unit.layer]
        rows = mine.rows[one.unit.index]
        assert one.evidence == tuple(rows.tolist())
        images = probe.load(rows.tolist())
        masks = torch.ones(4, 1, 64, 64)
        if mine.grid is not None:
            with torch.inference_mode(), target.record([one.unit.layer]) as seen:
                target.module(target.transform(images))
            for i in range(4):
                plane = seen[one.unit.layer][i, one.unit.index]
                masks[i, 0] = torch.from_numpy(oracle.mask(plane, mine.thresholds[one.unit.index].item(), 64))
        told = describer(images[None], masks[None])
        if told.captions[0]:
            assert str(one) == told.captions[0]
            assert dict(one.notes)["score"] == pytest.approx(told.scores.item(), abs=1e-3)
        else:
            assert one.terms == ()


def test_a_second_look_costs_nothing(describer, target, probe, trainer, monkeypatch):
    method = Milan(describer, k=3)
    first = method.explain(target, probe, trainer)
    from neuronx.methods.milan import method as module

    monkeypatch.setattr(module, "prepare", None)
    monkeypatch.setattr(encoder.Encoder, "__call__", None)
    assert method.explain(target, probe, trainer) == first


def test_units_that_never_fire_are_not_described(describer, probe, trainer):
    target = shapes.load("shapes_resnet", layers=["layer4"])
    own = find_exemplars(target, probe, trainer, k=3)["layer4"]
    found = Milan(describer, k=3, quantile=0.99).explain(target, probe, trainer)
    silent = {i for i in range(len(own.units)) if own.peaks[i, 0] <= own.thresholds[i]}
    assert silent <= {one.unit.index for one in found if not one.terms}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuronx.methods.milan.exemplar_source.ExemplarSource.fires", torch.zeros(len(own.units)).bool())
        assert all(not one.terms for one in Milan(describer, k=3).explain(target, probe, trainer))


def test_a_clip_chooses_among_the_beam(describer, target, probe, trainer):
    clip = Clip.shapes("explainer")
    some = target.select(layers=["layer4"], units=[2, 3])
    found = Milan(describer, k=4, rerank="clip", clip=clip).explain(some, probe, trainer)
    written = [one for one in found if one.terms]
    assert written
    images = clip.embed_images(probe, trainer)
    for one in written:
        rows = torch.tensor(one.evidence)
        mine = images[rows] @ clip.embed_texts([str(one)])[0]
        assert dict(one.notes)["clip"] == pytest.approx(mine.mean().item(), abs=1e-5)
    features = torch.rand(3, 4, 224)
    beams = describer.write(features, strategy="beam")
    texts, notes = most_similar(beams, describer, clip, images[:12].view(3, 4, -1))
    for i, text in enumerate(texts):
        choice = [describer.captioner.vocabulary.sentence(row) for row in beams.beams.tokens[i]]
        every = (images[4 * i : 4 * i + 4] @ clip.embed_texts(choice).T).mean(0)
        assert dict(notes[i])["clip"] == pytest.approx(every.max().item(), abs=1e-5) and text in choice


def test_options_go_to_the_captioner(describer, target, probe, trainer):
    method = Milan(describer, k=3, strategy="greedy", pmi=False, length=2)
    for one in method.explain(target.select(layers=["layer4"], units=[0, 1]), probe, trainer):
        assert len(str(one).split()) <= 2


def test_mistakes_are_said(describer, target, probe, trainer):
    with pytest.raises(UserError, match="rerank"):
        Milan(describer, rerank="clap")
    with pytest.raises(UserError, match="clip="):
        Milan(describer, rerank="clip")
    with pytest.raises(UserError, match="strategy=greedy"):
        Milan(describer, rerank="clip", clip=Clip.shapes("judge"), strategy="greedy")
    natural = Describer(describer.captioner, describer.encoder, "test", domain="natural")
    with pytest.raises(Unsuitable, match="knows natural pictures"):
        Milan(natural).explain(target, probe, trainer)
