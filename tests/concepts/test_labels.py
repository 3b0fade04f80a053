"""Labels and known truth, as concepts and as judges."""

from types import SimpleNamespace

import pytest
import torch

from neuronx.concepts.formula import spoken
from neuronx.concepts.labels import LabelConcepts, TruthConcepts
from neuronx.data.folder import FolderProbe
from neuronx.data.in_memory import InMemoryProbe
from neuronx.errors import UserError


def probe(labels=(0, 1, 2, 3), names=("hen", "missile", "Missile", "red_fox"), **options):
    return InMemoryProbe(torch.zeros(len(labels), 3, 2, 2), labels=list(labels), class_names=names, **options)


def test_classes_then_superclasses_and_equal_names_are_one():
    animals = probe(hierarchy={"bird_of_prey": [0], "hen": [0, 3], "weapon": [1, 2]})
    concepts = LabelConcepts().concepts(animals, None)
    assert concepts.names == ("hen", "missile", "red fox", "bird of prey", "weapon")
    assert concepts.scores.dtype == torch.float32
    assert concepts.scores.tolist() == [
        [1, 0, 0, 1, 0],
        [0, 1, 0, 0, 1],
        [0, 1, 0, 0, 1],
        [1, 0, 1, 0, 0],
    ]
    assert LabelConcepts(superclasses=False).concepts(animals, None).names == ("hen", "missile", "red fox")
    assert LabelConcepts().vocabulary(animals) == concepts.names


def test_imagenet_has_1389_names(shared):
    sets = shared / "data" / "concept_sets"
    sample = FolderProbe(
        shared / "data" / "imagenet_sample",
        class_names=sets / "imagenet_labels_clean.txt",
        hierarchy=sets / "imagenet_superclass_to_ids.json",
    )
    concepts = LabelConcepts().concepts(sample, None)
    assert len(concepts.names) == 1389 == len(set(map(spoken, concepts.names)))
    assert concepts.scores[:, concepts.names.index("missile")].sum() == 2
    assert concepts.scores[:, concepts.names.index("entity")].all()
    newt = concepts.scores[:, concepts.names.index("newt")].nonzero().flatten().tolist()
    assert newt == sorted(set(sample.hierarchy["newt"]) | {sample.class_names.index("newt")})


def test_the_judge_goes_by_exact_names():
    judgement = LabelConcepts().judge(["Red  FOX", "fox", "missile"], probe(), None)
    assert judgement.known.tolist() == [True, False, True]
    assert judgement.scores(torch.tensor([3, 1])).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert LabelConcepts.name == "labels" and LabelConcepts.domain == ""


def test_superclasses_out_of_range():
    with pytest.raises(UserError, match="Superclass `pets` of `memory` covers class 4, but there are 4 classes"):
        LabelConcepts().concepts(probe(hierarchy={"pets": [0, 4]}), None)


@pytest.mark.parametrize("source", [LabelConcepts(), TruthConcepts()])
def test_images_of_which_nothing_is_known(source):
    unknown = InMemoryProbe(torch.zeros(4, 3, 2, 2))
    with pytest.raises(UserError, match="`memory`"):
        source.concepts(unknown, None)
    with pytest.raises(UserError, match="`memory`"):
        source.judge(["dog"], unknown, None)


def test_truth_as_concepts_and_judge():
    known = SimpleNamespace(name="x", truth=(("red", "light_blue"), torch.tensor([[1, 0], [0, 1], [1, 1]]).bool()))
    concepts = TruthConcepts().concepts(known, None)
    assert concepts.names == ("red", "light_blue") and concepts.scores.tolist() == [[1, 0], [0, 1], [1, 1]]
    judgement = TruthConcepts().judge(["Light Blue", "sky"], known, None)
    assert judgement.known.tolist() == [True, False]
    assert judgement.scores(torch.tensor([1, 0])).tolist() == [[1, 0], [0, 0]]
    assert TruthConcepts().vocabulary(known) == ("red", "light_blue")
