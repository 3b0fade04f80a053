import math

import numpy as np
import pytest
import torch

from neuronx.errors import UserError
from neuronx.report.head_weights import (
    align_weights,
    description,
    name_by_unit,
    similarity_by_name,
    similarity_in_space,
    similarity_of_texts,
)
from neuronx.types import Explanation, Unit

CLASSES = ("cat", "dog", "car")


def planted(seed=0, units=30):
    """A head whose unit k is about class k % 3, and descriptions that say so; activations follow the labels."""
    generator = torch.Generator().manual_seed(seed)
    about = torch.arange(units) % 3
    weight = torch.eye(3)[about].T + 0.1 * torch.randn(3, units, generator=generator)
    labels = torch.randint(0, 3, (200,), generator=generator)
    activations = torch.eye(3)[labels][:, about] + 0.2 * torch.rand(200, units, generator=generator)
    return weight, activations, labels, [CLASSES[k] for k in about.tolist()]


def test_large_weights_of_a_planted_head_join_like_with_like():
    weight, _, _, said = planted()
    found = align_weights(weight, similarity_by_name(said, CLASSES), said, CLASSES)
    assert found.sizes == (4, 16, 64, 90) and found.n_units == 30
    assert found.similarity == pytest.approx((1, 1, 30 / 64, 1 / 3)) and found.pearson > 0.95
    assert len(found.links) == 10 and found.links[0].weight == weight.max()
    assert all(link.description == link.class_name == said[link.unit] for link in found.links)


def test_alignment_is_that_of_the_plain_computation():
    generator = np.random.default_rng(0)
    weight, similar = generator.normal(size=(5, 12)), generator.normal(size=(5, 12))
    said, names = [f"u{k}" for k in range(12)], [f"c{k}" for k in range(5)]
    found = align_weights(torch.tensor(weight), torch.tensor(similar), said, names)
    ranked = sorted(np.ndindex(5, 12), key=lambda at: -weight[at])
    for size, mean in zip(found.sizes, found.similarity, strict=True):
        assert mean == pytest.approx(np.mean([similar[at] for at in ranked[:size]]))
    assert found.pearson == pytest.approx(np.corrcoef(weight.ravel(), similar.ravel())[0, 1])
    assert [(link.class_name, link.unit) for link in found.links] == [(f"c{row}", unit) for row, unit in ranked[:10]]


def test_the_unit_that_contributes_most_tells_the_class():
    weight, activations, labels, said = planted()
    found = name_by_unit(weight, torch.zeros(3), activations, similarity_by_name(said, CLASSES), said, CLASSES, labels)
    assert found.accuracy == found.equal_to_label == found.equal_to_prediction == 1
    assert found.chance == pytest.approx(1 / 3)
    for row in range(0, 200, 17):
        prediction = int((weight @ activations[row]).argmax())
        assert (
            found.unit[row] == (weight[prediction] * activations[row]).argmax() and found.predicted[row] == prediction
        )


def test_a_bias_decides_predictions_but_no_contributions():
    weight, activations, _, said = planted()
    similar = similarity_by_name(said, CLASSES)
    found = name_by_unit(weight, torch.tensor([0.0, 0, 1e6]), activations, similar, said, CLASSES)
    assert found.predicted.eq(2).all() and found.unit.equal((weight[2] * activations).argmax(1))
    assert found.equal_to_prediction == found.named.eq(2).double().mean()
    assert math.isnan(found.equal_to_label) and math.isnan(found.accuracy)


def test_units_without_a_description_are_left_out():
    weight, activations, labels, said = planted()
    weight[:, 0] = 100  # the largest contribution by far, of a unit that nobody described
    said[0] = ""
    similar = similarity_by_name(said, CLASSES)
    assert similar[:, 0].isnan().all() and similar[:, 1:].isfinite().all()
    found = name_by_unit(weight, torch.zeros(3), activations, similar, said, CLASSES, labels)
    assert (found.unit != 0).all() and align_weights(weight, similar, said, CLASSES).n_units == 29
    with pytest.raises(UserError, match="No unit has a description"):
        align_weights(weight, similarity_by_name([""] * 30, CLASSES), [""] * 30, CLASSES)


def test_a_description_that_fits_no_class_tells_none():
    weight, activations, labels, _ = planted()
    nothing = ["grass"] * 30
    found = name_by_unit(
        weight, torch.zeros(3), activations, similarity_by_name(nothing, CLASSES), nothing, CLASSES, labels
    )
    assert found.named.eq(-1).all() and found.equal_to_label == found.chance == 0


def test_shapes_must_fit():
    weight, activations, labels, said = planted()
    similar = similarity_by_name(said, CLASSES)
    with pytest.raises(UserError, match="that shape"):
        align_weights(weight, similar.T, said, CLASSES)
    with pytest.raises(UserError, match="takes activations"):
        name_by_unit(weight, torch.zeros(3), activations[:, 1:], similar, said, CLASSES)
    with pytest.raises(UserError, match="7 labels"):
        name_by_unit(weight, torch.zeros(3), activations, similar, said, CLASSES, labels[:7])


def test_similarity_by_name_forgives_case_and_underscores():
    assert similarity_by_name(["Polar_Bear", "bear"], ["polar bear", "bear"]).tolist() == [[1, 0], [0, 1]]


def test_similarity_of_texts_is_the_cosine_and_asks_once():
    asked = []

    def embed(texts):
        asked.extend(texts)
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    found = similarity_of_texts(embed, ["a", "bbb", "a", ""], ["a", "cc"])
    assert sorted(asked) == ["a", "bbb", "cc"]
    assert found[:, 0].tolist() == found[:, 2].tolist() and found[:, 3].isnan().all()
    assert found[1, 1].item() == pytest.approx(7 / math.sqrt(10 * 5)) and found[0, 0].item() == pytest.approx(1)


def test_similarity_in_a_given_space():
    names = ["Cat", "dog", "cat"]
    found = similarity_in_space(names, torch.tensor([[2.0, 0], [0, 3], [1, 1]]), ["cat", "emu"], ["cat", "dog"])
    assert found[:, 0].tolist() == [1, 0] and found[:, 1].isnan().all(), "of equal names the first counts"
    with pytest.raises(UserError, match="`emu`"):
        similarity_in_space(names, torch.eye(3), ["cat"], ["emu"])


def test_real_class_names_are_near_their_kin(shared):
    words = shared / "data" / "concept_sets" / "imagenet_labels_clean.txt"
    names = words.read_text().splitlines()
    matrix = np.load(shared / "data" / "weights" / "clip_vit_b_32_datacomp_text_of_imagenet_classes.npy")
    said = ["tabby cat", "tiger cat", "school bus"]
    found = similarity_in_space(names, torch.tensor(matrix).T, said, ["tabby cat", "school bus", "minibus"])
    assert found[0, 1] > found[0, 2] and found[2, 2] > found[2, 0]


def test_the_first_term_describes():
    unit = Unit("a", 0)
    assert description(Explanation(unit, (("dog", 2.0), ("cat", 1.0)), 0.3)) == "dog"
    assert description(Explanation(unit, ())) == ""
