import math

import pytest
import torch

from neuronx.concepts.labels import LabelConcepts
from neuronx.data.in_memory import probe_of
from neuronx.errors import UserError
from neuronx.report.area_chart import area_chart, area_figure, chart_explanation, presence_of
from neuronx.types import Activations, Explanation, Unit

NAMES = ("snowmobile", "ski", "sled", "balaclava ski mask", "hound", "canine")
# As printed for ResNet-50, layer4, neuron 136: upper end, images, % of them with each of the names.
PRINTED = [
    (0.7129, 42873, (0, 0.01, 0.01, 0.01, 0.91, 9.46)),
    (1.4258, 5738, (0.05, 0.05, 0.45, 0.23, 6.88, 32.59)),
    (2.1387, 819, (0.37, 0.61, 1.83, 1.71, 16.73, 58.97)),
    (2.8516, 170, (8.82, 5.88, 15.88, 4.12, 12.94, 37.06)),
    (3.5645, 74, (12.16, 16.22, 20.27, 5.41, 6.76, 16.22)),
    (4.2773, 46, (34.78, 19.57, 23.91, 8.70, 2.17, 2.17)),
    (4.9902, 15, (20, 33.33, 20, 20, 0, 0)),
    (5.7031, 3, (33.33, 66.67, 0, 0, 0, 0)),
]


def published():
    """Images of one label each that fit the printed table; some lie exactly on the upper end of their range."""
    values, presence = [torch.zeros(262)], [torch.zeros(262, len(NAMES), dtype=torch.bool)]
    for index, (_, n, percent) in enumerate(PRINTED):
        high = 5.703125 * (index + 1) / 8
        values.append(high - (5.703125 / 8) * torch.arange(n) / n)
        counts = [round(n * share / 100) for share in percent]
        counts[-1] -= counts[-2]  # every hound is a canine
        shown, at = torch.zeros(n, len(NAMES), dtype=torch.bool), 0
        for concept, count in enumerate(counts):
            shown[at : at + count, concept] = True
            at += count
        shown[:, 5] |= shown[:, 4]
        presence.append(shown)
    return torch.cat(values), torch.cat(presence)


def test_the_published_chart_of_neuron_136():
    chart = area_chart(*(lambda values, presence: (values, NAMES, presence))(*published()))
    assert [round(edge, 4) for edge in chart.edges[1:].tolist()] == [end for end, _, _ in PRINTED]
    assert chart.images.tolist() == [n for _, n, _ in PRINTED] and chart.n_zero == 262
    assert chart.names == (*NAMES[:5], "other canine", "other")
    for index, (_, _, percent) in enumerate(PRINTED):
        expected = [*percent[:5], percent[5] - percent[4]]
        assert chart.percent[:6, index].tolist() == pytest.approx(expected, abs=0.011)
    assert chart.percent.sum(0).tolist() == pytest.approx([100] * 8)


def test_ranges_are_open_below_and_closed_above():
    chart = area_chart(torch.tensor([0.0, 1e-9, 1.0, 1.001, 2.0]), ["a"], torch.eye(5, 1, dtype=torch.bool), bins=2)
    assert chart.images.tolist() == [2, 2] and chart.n_zero == 1 and not chart.signed
    assert chart.percent[0].tolist() == [0, 0], "the one image that shows it has activation 0"


def test_a_signed_unit_keeps_all_its_images():
    chart = area_chart(torch.tensor([-1.0, 0.0, 0.5, 1.0]), ["a"], torch.ones(4, 1, dtype=torch.bool), bins=2)
    assert chart.signed and chart.images.tolist() == [2, 2] and chart.n_zero == 0
    assert chart.edges.tolist() == [-1, 0, 1]
    assert "lowest activation" in area_figure(chart).layout.title.subtitle.text


def test_a_concept_within_another_is_counted_once():
    presence = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
    chart = area_chart(torch.ones(4) + torch.arange(4) * 1e-3, ["hound", "canine", "animal"], presence, bins=1)
    assert chart.names == ("hound", "other canine", "other animal", "other")
    assert chart.percent.flatten().tolist() == [25, 25, 25, 25]
    same = area_chart(torch.arange(1.0, 5), ["a", "b"], presence[:, [0, 0]], bins=1)
    assert same.names == ("a", "b", "other"), "equal concepts do not contain each other"


def test_a_range_without_images_says_nothing():
    chart = area_chart(torch.tensor([0.1, 0.2, 4.0]), ["a"], torch.tensor([[True], [False], [True]]), bins=4)
    assert math.isnan(chart.percent[0, 1]) and chart.percent[0].tolist()[::3] == [50, 100]
    figure = area_figure(chart, "unit")
    assert all(math.isfinite(y) for trace in figure.data for y in trace.y)
    assert list(figure.data[0].x) == [0, 0.5, 3.5, 4]


def test_overlapping_concepts_are_told():
    presence = torch.tensor([[1, 1], [1, 0], [0, 1]], dtype=torch.bool)
    figure = area_figure(area_chart(torch.tensor([1.0, 2, 3]), ["red", "star"], presence, bins=1))
    assert "counts in each" in figure.layout.title.subtitle.text and figure.layout.yaxis.range[1] == pytest.approx(
        400 / 3
    )


@pytest.mark.parametrize(
    ("values", "presence", "what"),
    [
        ([1.0, 2], [[True]], "same images"),
        ([0.0, 0], [[True], [True]], "never above 0"),
        ([3.0, 3], [[True], [True]], "the same on all"),
        ([1.0, math.nan], [[True], [True]], "finite"),
        ([], [], "same images"),
    ],
)
def test_mistakes(values, presence, what):
    with pytest.raises(UserError, match=what):
        area_chart(torch.tensor(values), ["a"], torch.tensor(presence, dtype=torch.bool))


def test_the_chart_of_an_explanation(trainer):
    pictures = torch.zeros(60, 3, 4, 4, dtype=torch.uint8)
    probe = probe_of(pictures)
    probe.labels, probe.class_names = torch.arange(60) % 3, ("cat", "dog", "car")
    probe.hierarchy = {"animal": (0, 1)}
    recorded = Activations(torch.arange(120.0).view(60, 2), (Unit("a", 0), Unit("a", 1)), "avg")
    told = Explanation(Unit("a", 1), (("animal", 2.0), ("cat", 1.0), ("NOT animal", 0.5)), bias=0.1)
    chart = chart_explanation(told, recorded, probe, LabelConcepts(), trainer)
    assert chart.names == ("other animal", "cat", "NOT animal", "other")
    assert chart.percent[-1].eq(0).all() and chart.images.sum() == 60
    rows = torch.tensor([0, 2])
    assert presence_of(["cat", "car"], probe, LabelConcepts(), trainer, rows).tolist() == [[True, False], [False, True]]
    with pytest.raises(UserError, match="does not know `zebra`"):
        presence_of(["zebra"], probe, LabelConcepts(), trainer)
    with pytest.raises(UserError, match="not b:0"):
        chart_explanation(Explanation(Unit("b", 0), ()), recorded, probe, LabelConcepts(), trainer)
