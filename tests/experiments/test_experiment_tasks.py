from dataclasses import dataclass

import pytest

from neuronx.errors import UserError
from neuronx.experiments import Agreement, Auditing, Editing, Importance
from neuronx.experiments.given import Given
from neuronx.experiments.learned import Baselines, Generalisation
from neuronx.methods.milan.training.milan import Lesson
from neuronx.types import Explanation, Unit

TINY = Lesson(embedding_size=4, hidden_size=8, epochs=1, batch_size=16, hold_out=0.2)


@dataclass(frozen=True)
class Source:
    """Annotated units that are there already."""

    units: object
    domain: str = "shapes"

    def load(self, name, trainer):
        return self.units

    def truth(self, units):
        return [()] * len(units)


@dataclass(frozen=True)
class Sayer:
    """A method that always says the same of some units."""

    said: dict

    def explain(self, target, probe, trainer):
        return [Explanation(unit, ((text, 1.0),)) for unit, text in self.said.items()]


SEE = {Unit("see", 0): "red", Unit("see", 1): "green grass", Unit("see", 2): "a blue mark"}


@pytest.fixture
def given(target, probe, trainer, tmp_path):
    return Given(trainer, tmp_path, {"net": target}, probe, {"sayer": Sayer(SEE)})


def test_captioners_are_trained_and_tested_for_every_split(units, given):
    task = Generalisation(source=Source(units), lesson=TINY, models=["base"], experiments=["across tasks"], trials=2)
    text = task.run(given)
    for part in ("cls → gen", "gen → cls", "pmi", "likelihood", "nearest training unit", "always"):
        assert part in text
    lines = (given.folder / "generalisation.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * (2 * 2 + 3)


def test_labels_of_other_methods_are_compared_on_units_that_all_explain(units, given):
    labels = Sayer({Unit("conv1", 0): "red_circles", Unit("conv1", 1): "green-c", Unit("see", 0): "sky"})
    given = Given(given.trainer, given.folder, given.targets, given.probe, {"net_dissect": labels})
    task = Baselines(source=Source(units), lesson=TINY, model="alexnet/imagenet")
    text = task.run(given)
    assert "net_dissect" in text and "not alexnet/imagenet → alexnet/imagenet" in text
    row = next(line for line in text.splitlines() if "net_dissect" in line)
    assert row.split()[-2:] == ["2", "30"], "units tested and trained on"
    with pytest.raises(UserError, match="layers="):
        task.run(Given(given.trainer, given.folder, given.targets, given.probe, {"x": Sayer(SEE)}))
    with pytest.raises(UserError, match="leave out"):
        Baselines(source=Source(units), lesson=TINY, model="vgg16/imagenet").run(given)


def test_units_are_zeroed_searched_and_edited_by_what_the_first_method_says(given, probe):
    assert "length" in Importance(shares=[0.4], trials=2).run(given)
    text = Auditing(query=["mark", "grass"]).run(given)
    assert "mark | grass" in text and "see:2  a blue mark" in text
    assert "1 of 3 units name the mark" in Editing(query=["mark"], misleading=probe, trials=2).run(given)
    tables = {"importance_net.csv", "audit.csv", "editing.csv", "captions_net.csv"}
    assert {path.name for path in given.folder.glob("*.csv")} == tables
    assert {path.stem for path in given.folder.glob("*.html")} == {"importance_net", "audit", "editing"}
    assert (given.folder / "captions_net.csv").read_text().splitlines()[3] == "see,2,a blue mark"


def test_agreement_is_that_of_each_model_and_of_all(units, given):
    text = Agreement(source=Source(units)).run(given)
    assert "alexnet/imagenet, 6 units" in text and "all, 36 units" in text and 'always "depictions"' in text
    assert (given.folder / "agreement_biggan_places365.csv").is_file()
    file = units.folders[0].folder.parent / "annotations.csv"
    assert "annotations, 6 units" in Agreement(file=file).run(given)
    assert (given.folder / "agreement.csv").read_text().splitlines()[1].startswith("people,18,1.0,1.0,1.0,1.0,")


def test_what_is_missing_is_asked_for(given, probe, trainer, tmp_path):
    with pytest.raises(UserError, match="explain=milan"):
        Auditing(query=["x"]).run(Given(trainer, tmp_path, given.targets, probe))
    with pytest.raises(UserError, match="data="):
        Auditing(query=["x"]).run(Given(trainer, tmp_path, given.targets, None, given.methods))
    with pytest.raises(UserError, match="one network, not 0"):
        Editing(query=["x"], misleading=probe).run(Given(trainer, tmp_path))
