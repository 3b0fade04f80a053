import sys
from pathlib import Path

import pytest
import torch
from test_milan_describer import captioner

from neuronx.concepts.masked_clip import MaskedClip
from neuronx.errors import Unsuitable, UserError
from neuronx.methods.milan import describer as describers
from neuronx.methods.milan.captioner import Beams, Captions
from neuronx.methods.milan.choosing import most_similar
from neuronx.methods.milan.describer import Describer
from neuronx.methods.milan.method import Milan
from neuronx.recording.exemplars import find_exemplars
from neuronx.scoring.compare import check_judge
from neuronx.world import networks as shapes
from neuronx.world.clip import ShapesClip
from neuronx.world.pictures.probe import ShapesProbe

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import oracles_milannotations as oracle

PHRASES = ("red", "green", "blue", "circle", "square", "star", "grass", "sky", "sand", "striped")


@pytest.fixture(scope="module")
def describer():
    return Describer(captioner(PHRASES).eval(), describers.encoder_of("shapes_resnet"), "test", domain="shapes")


@pytest.fixture(scope="module")
def target():
    return shapes.load("shapes_resnet", layers=["layer4", "fc"])


@pytest.fixture(scope="module")
def probe():
    return ShapesProbe(60, 3)


def test_units_are_described_by_their_exemplars(describer, target, probe, trainer):
    some = target.select(units=[1, 5, 9], masks="published")
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
    for place in ("method.prepare", "describer.Describer.write"):
        monkeypatch.setattr(f"neuronx.methods.milan.{place}", None)
    monkeypatch.setattr(describers.RegionEncoder, "__call__", None)
    assert method.explain(target, probe, trainer) == first


def test_captions_are_written_anew_where_anything_differs(describer, target, probe, trainer, monkeypatch):
    asked = []
    plain = Describer.write

    def counted(self, features, **options):
        asked.append(len(features))
        return plain(self, features, **options)

    monkeypatch.setattr(Describer, "write", counted)
    some = target.select(layers=["layer4"], units=[2, 3, 4])
    for times, options in enumerate(({"length": 3}, {"length": 4}, {"length": 3, "beam_size": 2}), 1):
        found = [Milan(describer, k=4, **options).explain(some, probe, trainer) for _ in range(2)]
        assert found[0] == found[1] and len(asked) == times
    other = Describer(captioner(PHRASES, seed=1).eval(), describer.encoder, "test", domain="shapes")
    assert Milan(other, k=4, length=3).explain(some, probe, trainer) != found[0] and len(asked) == 4


def test_samples_are_the_same_again(describer, target, probe, trainer, monkeypatch, tmp_path):
    some = target.select(layers=["layer4"], units=[2, 3, 4])
    first = Milan(describer, k=4, strategy="sample").explain(some, probe, trainer)
    monkeypatch.setenv("NEURONX_CACHE", str(tmp_path))
    torch.rand(1)
    assert Milan(describer, k=4, strategy="sample").explain(some, probe, trainer) == first


def test_units_that_never_fire_are_not_described(describer, probe, trainer):
    target = shapes.load("shapes_resnet", layers=["layer4"])
    own = find_exemplars(target, probe, trainer, k=3)["layer4"]
    found = Milan(describer, k=3, quantile=0.99).explain(target, probe, trainer)
    silent = {i for i in range(len(own.units)) if own.peaks[i, 0] <= own.thresholds[i]}
    assert silent <= {one.unit.index for one in found if not one.terms}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuronx.methods.milan.method.ExemplarSource.fires", torch.zeros(len(own.units)).bool())
        assert all(not one.terms for one in Milan(describer, k=3).explain(target, probe, trainer))


def test_a_clip_chooses_among_the_beam(describer, target, probe, trainer):
    clip = ShapesClip(pretrained="shapes_explainer")
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
    chosen, cosines = most_similar(beams, describer.captioner, clip, images[:12].view(3, 4, -1))
    for i, (text, cosine) in enumerate(zip(chosen.captions, cosines.tolist(), strict=True)):
        choice = [describer.captioner.vocabulary.sentence(row) for row in beams.beams.tokens[i]]
        every = (images[4 * i : 4 * i + 4] @ clip.embed_texts(choice).T).mean(0)
        assert cosine == pytest.approx(every.max().item(), abs=1e-5) and text in choice
        assert describer.captioner.vocabulary.sentence(chosen.tokens[i].tolist()) == text


def test_a_caption_without_words_is_chosen_only_where_there_is_no_other(describer):
    clip, stop = ShapesClip(pretrained="shapes_explainer"), len(PHRASES) + 1
    beams = Beams(torch.tensor([[[stop, stop], [3, stop]], [[stop, stop], [stop, stop]]]), torch.zeros(2, 2))
    told = Captions((), torch.zeros(2), beams.tokens[:, 0], beams)
    blank = clip.embed_texts([""]).expand(2, 4, -1)
    assert most_similar(told, describer.captioner, clip, blank)[0].captions == ("Circle", "")


def test_a_clip_may_look_within_the_masks(describer, target, probe, trainer):
    clip = ShapesClip(pretrained="shapes_explainer")
    looking = MaskedClip(clip.encoder.image_target(clip.name))
    some = target.select(layers=["layer4"], units=[2, 3], masks="published")
    own = find_exemplars(some, probe, trainer, k=4)["layer4"]
    images = clip.embed_images(probe, trainer)
    for share in (1.0, 0.25):
        for one in Milan(describer, k=4, rerank="clip", clip=clip, masked=share).explain(some, probe, trainer):
            pictures = probe.load(list(one.evidence))
            with torch.inference_mode(), target.record(["layer4"]) as seen:
                target.module(target.transform(pictures))
            planes, threshold = seen["layer4"][:, one.unit.index], own.thresholds[one.unit.index].item()
            masks = torch.stack([torch.from_numpy(oracle.mask(plane, threshold, 64)) for plane in planes])
            text = clip.embed_texts([str(one)])[0]
            within = looking(pictures, masks[:, None]) @ text
            whole = images[torch.tensor(one.evidence)] @ text
            expected = share * within.mean() + (1 - share) * whole.mean()
            assert dict(one.notes)["clip"] == pytest.approx(expected.item(), abs=1e-4)


def test_options_go_to_the_captioner(describer, target, probe, trainer):
    method = Milan(describer, k=3, strategy="greedy", pmi=False, length=2)
    for one in method.explain(target.select(layers=["layer4"], units=[0, 1]), probe, trainer):
        assert len(str(one).split()) <= 2


def test_mistakes_are_said(describer, target, probe, trainer):
    with pytest.raises(UserError, match="rerank"):
        Milan(describer, rerank="clap")
    with pytest.raises(UserError, match="clip="):
        Milan(describer, rerank="clip")
    for masked, rerank in ((2, "clip"), (True, None)):
        with pytest.raises(UserError, match=rf"milan\.masked={masked}: .*0 to 1"):
            Milan(describer, rerank=rerank, clip=ShapesClip(pretrained="shapes_judge"), masked=masked)
    with pytest.raises(UserError, match="strategy=greedy"):
        Milan(describer, rerank="clip", clip=ShapesClip(pretrained="shapes_judge"), strategy="greedy")


def test_the_clip_that_it_sees_through_cannot_judge(probe, tmp_path, describer):
    explainer, judge = ShapesClip(pretrained="shapes_explainer"), ShapesClip(pretrained="shapes_judge")
    shipped = Milan("milan_base")
    assert shipped.encoders == explainer.encoders
    with pytest.raises(UserError, match="judge shapes_explainer has made the explanations of milan"):
        check_judge(explainer, probe, [("milan", *shipped.encoders)])
    check_judge(judge, probe, [("milan", *shipped.encoders)])
    assert not Milan(describer).encoders, "a classifier is no judge"
    assert not Milan("milan_base", encoder="shapes_resnet").encoders
    assert Milan("milan_base", encoder="shapes_judge").encoders == judge.encoders
    assert Milan(describer, rerank="clip", clip=judge).encoders == judge.encoders
    assert not Milan("published").encoders


def test_pictures_of_another_kind_are_described_in_words_of_its_own(describer, target, probe, trainer, caplog):
    natural = Describer(describer.captioner, describer.encoder, "test", domain="natural")
    some = target.select(layers=["layer4"], units=[1, 2])
    with pytest.raises(Unsuitable, match=r"test knows natural pictures, and those of `shapes` are shapes: set milan"):
        Milan(natural, k=4).check(probe)
    assert Milan(natural, k=4).explain(some, probe, trainer) == Milan(describer, k=4).explain(some, probe, trainer)
    assert "Its words are about the pictures that it knows" in caplog.text
    Milan(describer).check(probe)
