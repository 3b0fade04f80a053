"""Heat is relevance: what zennit-crp finds, conserved, as large as the unit's peak; crops follow it."""

import sys

import pytest
import timm
import torch
import torchvision
from circuit_cases import Pictures, Small, settled, small_target, timm_resnet, untouched
from timm.models.resnet import BasicBlock
from torch import nn

from neuronx.errors import UserError
from neuronx.methods.pure.heat import find_heat, heat_maps
from neuronx.methods.pure.patches import HEAT, boxes, cut, find_masks
from neuronx.methods.pure.samples import Samples
from neuronx.recording.exemplars import find_exemplars
from neuronx.targets.target import Target


@pytest.fixture
def zennit():
    return pytest.importorskip("zennit", reason="zennit is not installed (pip install neuronx[pure])")


def target_of(network, layer, **options):
    return Target("network", network, nn.Identity(), {layer: "avg"}, input_size=64, **options)


def firing(target, layer, images):
    """A unit for each image that fires there."""
    with target.record([layer]) as outputs, torch.no_grad():
        target.module(images)
    return outputs[layer].amax((2, 3)).topk(len(images)).indices.diagonal()


def peaks_of(target, layer, images, units):
    with target.record([layer]) as outputs, torch.no_grad():
        target.module(images)
    return outputs[layer].flatten(2)[torch.arange(len(units)), units].max(1)


@pytest.mark.parametrize("layer", ["layer2", "layer3.0"])
def test_it_is_what_zennit_crp_finds(layer):
    pytest.importorskip("crp", reason="zennit-crp is not installed (pip install neuronx[pure])")
    from crp.attribution import CondAttribution
    from crp.concepts import ChannelConcept
    from zennit.composites import EpsilonPlusFlat
    from zennit.torchvision import ResNetCanonizer

    torch.manual_seed(0)
    network = settled(torchvision.models.resnet18(num_classes=5))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-9  # zennit 0.4 leaves the epsilon of merged batch norms, so that theirs has to be small
    target, images = target_of(network, layer), Pictures(3, 64).images[[0, 1, 1, 2]]
    units = firing(target, layer, images)
    places = peaks_of(target, layer, images, units).indices
    found = find_heat(target, layer, images[:1], "lrp")(images, units, places)
    expected = CondAttribution(network)(
        images.clone().requires_grad_(),
        [{layer: {unit: [at]}} for unit, at in zip(units.tolist(), places.tolist(), strict=True)],
        EpsilonPlusFlat(canonizers=[ResNetCanonizer()]),
        mask_map=ChannelConcept.mask_rf,
        start_layer=layer,
    ).heatmap
    largest = expected.abs().amax((1, 2), keepdim=True)
    assert (largest > 1e-3).all()
    assert ((found - expected).abs() / largest).max() < 1e-4
    assert untouched(network)


@pytest.mark.usefixtures("zennit")
@pytest.mark.parametrize(("make", "layer"), [(lambda: Small(6), "stage2"), (lambda: timm_resnet(BasicBlock), "layer3")])
def test_relevance_is_conserved_without_biases(make, layer):
    torch.manual_seed(0)
    network = settled(make(), biases=False)
    for parameter in (module.bias for module in network.modules() if getattr(module, "bias", None) is not None):
        parameter.data.zero_()
    target, images = target_of(network, layer), Pictures(3, 64).images
    units = firing(target, layer, images)
    peaks = peaks_of(target, layer, images, units)
    found = find_heat(target, layer, images[:1], "lrp")(images, units, peaks.indices)
    torch.testing.assert_close(found.sum((1, 2)), peaks.values, rtol=1e-3, atol=0)
    assert peaks.values.min() > 0.01 and untouched(network)


@pytest.mark.usefixtures("zennit")
def test_pairs_do_not_depend_on_each_other(monkeypatch):
    target, probe = small_target(), Pictures()
    rows, units = torch.tensor([[5, 0, 5], [2, 5, 6]]), torch.tensor([4, 1])
    places = torch.tensor([[0, 3, 5], [1, 2, 3]])
    together = heat_maps(target, probe, "stage2", rows, units, places, "lrp")
    monkeypatch.setattr("neuronx.methods.pure.heat.PAIRS", 1)
    one_by_one = heat_maps(target, probe, "stage2", rows, units, places, "lrp")
    assert together.shape == (2, 3, 16, 16) and together.amax() > 0
    torch.testing.assert_close(together, one_by_one)


def silent(layer="stage2"):
    """A network whose unit 0 never fires."""
    target = small_target()
    last = target.module.stage2[1]
    for norm in (last.bn2, last.down[1]):
        norm.weight.data[0], norm.bias.data[0] = 0, -1
    return target


@pytest.mark.parametrize("heat", ["auto", "gradient"])
def test_without_heat_the_whole_picture_counts(trainer, heat):
    target, probe = silent(), Pictures()
    found = find_exemplars(target, probe, trainer, k=3, rows=torch.arange(7))["stage2"]
    maps = heat_maps(target, probe, "stage2", found.rows[:1], torch.tensor([0]), found.places[:1], heat)
    assert not maps.any()
    (masks,) = find_masks(found, torch.tensor([0]), target, probe, trainer, 16, "heat", heat)
    assert (boxes(masks) == torch.tensor([0, 0, 16, 16])).all()


def test_crops_have_inclusive_ends_and_stay_inside():
    maps = torch.zeros(3, 16, 16)
    maps[0, 4:10, 4:10] = 1  # rows and columns 4 to 9, the last ones too
    maps[1, 12:, 9:] = 1  # at the far border the square moves inwards
    maps[2, 3:9, 3:9], maps[2, 0, 0] = 1, 0.019  # less than 2 % does not count
    made = boxes(cut(maps, HEAT * maps.amax((1, 2)), 16))
    assert made.tolist() == [[4, 4, 10, 10], [9, 9, 16, 16], [3, 3, 9, 9]]


@pytest.mark.usefixtures("zennit")
def test_where_no_rules_apply_it_is_the_gradient_or_an_error():
    network = timm.create_model("test_vit", img_size=64, num_classes=5)
    target, images = target_of(network, "blocks.1"), Pictures(2, 64).images
    with pytest.raises(UserError, match=r"heat=lrp does not cover `layer_norm`.*use heat=gradient"):
        find_heat(target, "blocks.1", images, "lrp")
    assert find_heat(target, "blocks.1", images).rules is None
    assert untouched(network)


@pytest.mark.usefixtures("zennit")
def test_what_comes_after_the_layer_needs_no_rules():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Softmax(1)).eval()
    assert find_heat(target_of(network, "2"), "2", Pictures(2, 64).images).rules.flat == "0"
    assert find_heat(target_of(network, "3"), "3", Pictures(2, 64).images).rules is None


@pytest.mark.usefixtures("zennit")
def test_a_mistake_leaves_nothing_on_the_network():
    target, images = small_target(), Pictures().images
    heat = find_heat(target, "stage2", images[:1], "lrp")
    with pytest.raises(IndexError):
        heat(images[:1], torch.tensor([99]), torch.tensor([0]))
    assert untouched(target.module)


def test_without_zennit_lrp_names_the_way_to_it_and_auto_is_the_gradient(monkeypatch):
    monkeypatch.setitem(sys.modules, "zennit", None)
    with pytest.raises(UserError, match=r"heat=lrp needs zennit.*pip install neuronx\[pure\]"):
        Samples(crop="heat", heat="lrp")
    assert find_heat(small_target(), "stage2", Pictures().images).rules is None


def test_mistakes_are_told():
    with pytest.raises(UserError, match=r"no kind of heat `lpr`\. Nearest: lrp"):
        Samples(heat="lpr")
    target, rows = small_target(), torch.zeros(1, 1, dtype=torch.int64)
    probe = Pictures()
    probe.images[0] = torch.nan
    with pytest.raises(UserError, match="unit 0 of `stage2` on image 0 is NaN"):
        heat_maps(target, probe, "stage2", rows, rows[0], rows, "gradient")
