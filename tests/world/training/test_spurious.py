import json

import pytest

from neuronx.world import networks as shapes
from neuronx.world.pictures.marks import MARKS, MarkedProbe
from neuronx.world.training.classifier import SpuriousTask


@pytest.fixture
def task():
    sizes = {"epochs": 1, "images": 64, "batch_size": 16, "held_out": 50}
    return SpuriousTask(
        "shapes_spurious", "small_resnet", {"layer4": "avg"}, lr=1e-3, weight_decay=0.01, seed=0, **sizes
    )


def test_a_tempted_network_is_trained_measured_and_read_back(task, trainer, tmp_path):
    path = task.run(trainer, tmp_path)
    card = json.loads(path.with_suffix(".json").read_text())
    assert {f"accuracy, marks {kind}" for kind in MARKS} <= set(card["figures"])
    target = shapes.load(path)
    assert target.class_names == MarkedProbe(size=10).class_names and target.layers == {"layer4": "avg"}
