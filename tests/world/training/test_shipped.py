"""What lies in checkpoints/: small, whole, and as good as its cards say."""

import json
from functools import partial

import pytest
import torch

from neuronx import checkpoints
from neuronx.data.latents import latent_probe
from neuronx.world import clip as shapes_clip
from neuronx.world import generator
from neuronx.world import networks as shapes
from neuronx.world.pictures.probe import WORLDS, seeds_of
from neuronx.world.pictures.words import CONCEPTS
from neuronx.world.training import contrastive
from neuronx.world.training.classifier import describe
from neuronx.world.training.contrastive import auroc
from neuronx.world.training.generator import measure
from neuronx.world.training.scenes import GROUPS, SINGLE_WORDS, fixed_batches

CLASSIFIERS = {"shapes_resnet": "shapes", "shapes_alexnet": "shapes", "shapes_vit": "shapes"}
CLASSIFIERS |= {"places_resnet": "places", "places_alexnet": "places"}
CLIPS = ("shapes_explainer", "shapes_judge")
GENERATOR = "shapes_gan"
GENERATORS = (GENERATOR, "places_gan")


def card(name: str) -> dict:
    return json.loads((checkpoints.FOLDER / f"{name}.json").read_text())


def test_all_together_are_under_20_megabytes():
    assert sum(file.stat().st_size for file in checkpoints.FOLDER.iterdir() if file.is_file()) < 20e6


@pytest.mark.parametrize("name", (*CLASSIFIERS, *CLIPS, *GENERATORS))
def test_cards_say_how_the_weights_were_made(name):
    page, facts = (checkpoints.FOLDER / f"{name}.md").read_text(), card(name)
    assert facts["command"] in page and facts["command"].endswith(f"={name} ship=true")
    assert (facts["training"]["image seed"], facts["figures"]["image seed"]) == seeds_of(name)
    assert facts["training"]["wall seconds"] > 0 and facts["training"]["images seen"] > 0


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_are_as_accurate_as_their_cards_say(name):
    target, figures, world = shapes.load(name), card(name)["figures"], WORLDS[CLASSIFIERS[name]]
    assert target.class_names == world.class_names
    hits = []
    with torch.inference_mode():
        for images, labels, _ in fixed_batches(seeds_of(name)[1], 500, partial(describe, world=world), world=world):
            hits.append(target.module(target.transform(images)).argmax(1) == labels)
    # Four standard errors of 500 images.
    assert torch.cat(hits).float().mean().item() == pytest.approx(figures["accuracy"], abs=0.08)
    assert figures["images"] == 5000


@pytest.mark.parametrize("name", CLIPS)
def test_clips_find_words_as_well_as_their_cards_say(name):
    encoder, figures = shapes_clip.load(name), card(name)["figures"]
    embeddings, truth = [], []
    with torch.inference_mode():
        for images, known in fixed_batches(seeds_of(name)[1], 750, contrastive.describe):
            embeddings.append(encoder.model.encode_image(encoder.transform(images), normalize=True))
            truth.append(known)
    cosines = torch.cat(embeddings) @ encoder.embed(list(CONCEPTS), 512).T
    values = dict(zip(CONCEPTS, auroc(cosines, torch.cat(truth)).tolist(), strict=True))
    for group, names in {"single words": SINGLE_WORDS, **GROUPS}.items():
        mean = sum(values[one] for one in names) / len(names)
        assert mean == pytest.approx(figures[f"AUROC of {group}"], abs=0.02), group
    assert figures["AUROC of single words"] >= 0.97
    assert min(figures[f"AUROC of {group}"] for group in ("shapes", "colours", "textures", "backgrounds")) >= 0.95


@pytest.mark.parametrize("name", CLIPS)
def test_the_sigmoid_makes_probabilities_that_fit_the_truth(name):
    encoder = shapes_clip.load(name)
    known = shapes_clip.ShapesClip(pretrained=name).known()
    (images, truth) = next(iter(fixed_batches(seeds_of(name)[1], 250, contrastive.describe)))
    with torch.inference_mode():
        cosines = encoder.model.encode_image(encoder.transform(images), normalize=True)
    scores = known.scores(cosines @ encoder.embed(list(CONCEPTS), 512).T)
    assert scores.mean().item() == pytest.approx(truth.float().mean().item(), rel=0.2)
    assert scores[truth].mean() > 10 * scores[~truth].mean()


def test_the_judge_is_another_network_with_other_pictures_than_the_explainer():
    explainer, judge = (card(name) for name in CLIPS)
    assert explainer["vision"] != judge["vision"]
    assert explainer["training"]["weight seed"] != judge["training"]["weight seed"]
    assert explainer["training"]["image seed"] != judge["training"]["image seed"]


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_make_what_their_cards_say(name, trainer):
    target, figures = generator.load(name), card(name)["figures"]
    world, witness = (WORLDS["places"], "places_alexnet") if name != GENERATOR else (WORLDS["shapes"], "shapes_vit")
    assert (checkpoints.FOLDER / f"{name}.safetensors").stat().st_size < 2e6
    assert target.latents.domain == "shapes" and target.latents.class_names == world.class_names
    found = measure(latent_probe(target, 250, seeds_of(name)[1]), witness, trainer, seeds_of(name)[1], world)
    # Four standard errors of 250 images.
    for part in ("class", *world.factors):
        assert found[f"share of {part} as asked"] == pytest.approx(figures[f"share of {part} as asked"], abs=0.13)
    assert figures[f"share of {world.factors[0]} as asked"] > 0.5 and figures["images"] == 5000
