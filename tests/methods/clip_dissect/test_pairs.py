from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.methods.clip_dissect.method import ClipDissect, best_pairs, candidates, grouped
from neuronx.methods.clip_dissect.similarity import soft_wpmi
from neuronx.types import Activations, Unit

NAMES = ("red", "blue", "star", "ring", "noise")


def world(n=300, seed=0):
    """Images with a colour and a shape in two blocks of an embedding; a text is the sum of its words, in any order."""
    generator = torch.Generator().manual_seed(seed)
    colour, shape = (torch.randint(0, 2, (n,), generator=generator) for _ in range(2))
    words = torch.eye(5)
    images = words[colour] + words[2 + shape] + 0.05 * torch.randn(n, 5, generator=generator)

    def embed(texts, store=True):
        asked.append(list(texts))
        return F.normalize(
            torch.stack([sum(words[NAMES.index(word)] for word in text.split()) for text in texts]), dim=1
        )

    asked: list[list[str]] = []
    # Units: red, star, red star, blue ring, blue, ring; a bit of noise orders their images.
    red, star = (colour == 0).float(), (shape == 0).float()
    values = torch.stack([red, star, red * star, (1 - red) * (1 - star), 1 - red, 1 - star], 1)
    values += 0.01 * torch.rand(n, 6, generator=generator)
    return F.normalize(images, dim=1), values, embed, asked


def test_units_that_see_two_things_get_two_words():
    images, values, embed, asked = world()
    cosines = images @ embed(NAMES).T
    scores = soft_wpmi(cosines, values, top_k=50)
    found = best_pairs(scores, NAMES, range(6), images, values, embed, "soft_wpmi", top_k=50)
    assert set(found[2][0][0].split()) == {"red", "star"} and set(found[3][0][0].split()) == {"blue", "ring"}
    assert len(asked) == 2 and len(asked[1]) == 25, "each distinct text is embedded once for all units"


def test_a_unit_is_scored_on_its_own_list_beside_the_whole_layer():
    images, values, embed, _ = world(seed=1)
    scores = soft_wpmi(images @ embed(NAMES).T, values, top_k=30)
    found = best_pairs(scores, NAMES, [2], images, values, embed, "soft_wpmi", 3, 3, top_k=30)
    texts = candidates(scores[2], NAMES, 3)
    direct = soft_wpmi(images @ embed(texts).T, values, top_k=30)[2]
    best = direct.topk(3)
    assert [score for _, score in found[2]] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert found[2][0][0] == texts[int(direct.argmax())] and list(found) == [2]


def test_a_function_that_looks_at_each_unit_alone_gives_the_same_with_fewer_units():
    images, values, embed, _ = world(seed=2)
    scores = torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    everyone = best_pairs(scores, NAMES, range(6), images, values, embed, "cos_similarity_cubed")
    alone = best_pairs(scores[[3]], NAMES, [0], images, values[:, [3]], embed, "cos_similarity_cubed")
    assert alone[0] == everyone[3]


def test_candidates_are_ordered_pairs_and_then_words():
    scores = torch.tensor([0.1, 0.9, 0.5, 0.2])
    assert candidates(scores, ["a", "b", "c", "d"], 2) == ["b c", "c b", "b", "c"]
    many = torch.rand(300)
    assert len(candidates(many, [str(k) for k in range(300)], 100)) == 10_000
    assert candidates(torch.tensor([3.0, 2, 1]), ["a", "b", "a b"], 9).count("a b") == 1


def test_groups_hold_a_bounded_number_of_texts():
    lists = {0: ["a", "b"], 1: ["b", "c"], 5: ["d", "e"], 6: list("abcdef")}
    assert list(grouped(lists, 4)) == [[0, 1], [5], [6]]
    assert list(grouped(lists, 3)) == [[0, 1], [5], [6]] and list(grouped(lists, 99)) == [[0, 1, 5, 6]]
    assert list(grouped({}, 3)) == []


def test_the_method_labels_with_pairs_when_asked():
    images, values, embed, _ = world()
    values = torch.cat([values, torch.zeros(len(values), 1)], 1)
    layer = Activations(values, tuple(Unit("a", k) for k in range(7)), "avg")
    clip = SimpleNamespace(embed_texts=embed)
    method = ClipDissect(clip, None, pairs=True, top_k=50)  # type: ignore[arg-type]
    rows = torch.arange(len(images))
    found = method.explain_layer(layer, rows, images @ embed(NAMES).T, NAMES, [2, 6], images)
    assert [one.unit.index for one in found] == [2, 6] and found[1].terms == ()
    assert set(found[0].terms[0][0].split()) == {"red", "star"} and len(found[0].evidence) == 15
    with pytest.raises(UserError, match="pairs_from"):
        ClipDissect(clip, None, pairs=True, pairs_from=1)  # type: ignore[arg-type]
