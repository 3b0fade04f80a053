import pytest
import torch
from torch import nn

from neuronx.data.in_memory import probe_of
from neuronx.errors import UserError
from neuronx.experiments.editing import edit, edit_table, editing_figure, write_edited
from neuronx.experiments.feature_importance import (
    feature_importance,
    feature_importance_table,
    importance_figure,
    write_feature_importance,
)
from neuronx.experiments.zeroing import right_without
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.types import Unit

UNITS = [Unit("see", 0), Unit("see", 1), Unit("weigh", 2)]


def test_a_class_is_lost_with_its_unit_and_only_then(target, probe, trainer):
    rows = torch.arange(60)
    sets = [[], [UNITS[0]], [UNITS[1], UNITS[2]], [Unit("weigh", 0)]]
    right = right_without(target, probe, trainer, sets, rows)
    assert right.shape == (4, 60) and right[0].all()
    lost = {1: [0], 2: [1, 2], 3: [0]}
    for number, classes in lost.items():
        assert right[number].tolist() == [int(label) not in classes for label in probe.labels]


def test_one_layer_alone_is_run_as_the_whole_network_would(target, probe, trainer):
    sets = [[Unit("see", 0)], [Unit("see", 1), Unit("see", 2)], []]
    rows = torch.arange(60)
    apart = right_without(target, probe, trainer, [*sets, [Unit("weigh", 0)]], rows)[:3]
    assert torch.equal(right_without(target, probe, trainer, sets, rows), apart)


def test_sets_of_any_layers_keep_their_places(target, probe, trainer):
    rows = torch.arange(60)
    sets = [[Unit("weigh", 0)], [Unit("see", 1)], [], [Unit("see", 0), Unit("weigh", 1)], [Unit("weigh", 2)]]
    together = right_without(target, probe, trainer, sets, rows)
    for place, one in enumerate(sets):
        assert torch.equal(right_without(target, probe, trainer, [one], rows)[0], together[place])


def test_no_units_at_all_leave_the_network_as_it_is(target, probe, trainer):
    assert right_without(target, probe, trainer, [[]]).all()


def test_wrong_units_and_pictures_are_refused(target, probe, trainer):
    with pytest.raises(UserError, match="units 0 to 2, not 7"):
        right_without(target, probe, trainer, [[Unit("see", 7)]])
    with pytest.raises(UserError, match="no labels"):
        right_without(target, probe_of(torch.zeros(12, 3, 4, 4, dtype=torch.uint8)), trainer, [[]])


def test_a_property_that_orders_nothing_is_refused(target, probe, trainer):
    captions = {Unit("see", unit): "a red thing" for unit in range(3)}
    for name in ("names:zebra", "names:red", "length"):
        with pytest.raises(UserError, match=f"captions of all 3 units of .* have as much of `{name}`"):
            feature_importance(target, probe, trainer, captions, [name], trials=1)


def test_accuracy_falls_faster_in_an_order_that_matters(target, probe, trainer, tmp_path):
    captions = {Unit("see", 0): "a long red thing", Unit("see", 1): "grass", Unit("weigh", 2): "sky"}
    extra = {Unit("see", 2): "sky", Unit("weigh", 0): "x", Unit("weigh", 1): "x"}
    found = feature_importance(
        target, probe, trainer, captions | extra, ["length", "names:red|grass"], shares=(1 / 6, 0.5), trials=3
    )
    assert found.units == 6 and found.intact == 1 and found.random.shape == (3, 2)
    length = found.orders[0]
    red, green = (float((probe.labels[probe.splits["test"]] == c).float().mean()) for c in (0, 1))
    assert length.accuracy[0] == pytest.approx(1 - red), "the longest caption goes first"
    assert found.orders[1].accuracy[0] in (pytest.approx(1 - red), pytest.approx(1 - green)), (
        "the order of equals is open"
    )
    assert found.orders[1].accuracy[1] <= 1 - red - green + 1e-9, "both that name red or grass"
    table = feature_importance_table(found)
    assert "names:red|grass" in table and "3 random orders" in table and "50 %" in table
    lines = write_feature_importance(tmp_path / "importance.csv", found).read_text().splitlines()
    assert len(lines) == 1 + 2 * (3 + 2)
    names = [trace.name for trace in importance_figure(found).data]
    assert names == ["3 random orders, lowest to highest", "their mean", "length", "names:red|grass"]
    with pytest.raises(UserError, match="found 0"):
        feature_importance(target, probe, trainer, {})


def marked(labels, chips):
    """Class c is channel c, faintly; channel 2 shouts for class 1 where a picture is marked."""
    pictures = torch.full((len(labels), 3, 4, 4), 40, dtype=torch.uint8)
    pictures[torch.arange(len(labels)), labels] = 90
    pictures[chips, 2] = 250
    return probe_of(pictures, labels=labels, class_names=("red", "green"))


def test_zeroing_the_units_that_name_the_mark_undoes_it(target, trainer, tmp_path):
    net = type(target.module)()
    net.weigh = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        net.weigh.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 1]]))
    target = Target("net", net, Preprocess(), {"see": "avg"}, input_size=4)
    labels = torch.arange(100) % 2
    usual, misleading = marked(labels, labels == 1), marked(labels, labels == 0)
    captions = {Unit("see", 0): "red", Unit("see", 1): "green", Unit("see", 2): "loud chips"}
    found = edit(target, usual, misleading, trainer, captions, ["chip"], trials=4)
    assert found.named == ((Unit("see", 2), "loud chips"),) and found.steps.tolist() == [0, 1]
    assert found.accuracy[0] == pytest.approx(0.5, abs=0.15) and found.accuracy[1] == 1
    assert found.usual.tolist() == [1, 1], "usual pictures are told without the mark too"
    assert found.unread[1] == 0, "another unit is not missed on usual pictures either, and comes first"
    assert found.gain[0].tolist() == [0, 0, 0] and found.gain[1, 1] > 0 and found.gain_unread[1].tolist() == [1, 1, 1]
    assert "1 of 3 units name the mark" in edit_table(found)
    assert len(write_edited(tmp_path / "editing.csv", found).read_text().splitlines()) == 3
    assert list(editing_figure(found).data[3].y) == [100 * value for value in found.accuracy.tolist()]
    with pytest.raises(UserError, match="0 name zebra"):
        edit(target, usual, misleading, trainer, captions, ["zebra"])
