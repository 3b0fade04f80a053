"""One pass over images: batches in order, whole outputs, inputs of several parts, errors that name the layer."""

import pytest
import torch
from torch import nn

from neuronx.errors import UserError
from neuronx.recording.exemplars import find_exemplars
from neuronx.recording.forward_pass import try_layers, visit_outputs
from neuronx.recording.record import record
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target


def test_every_batch_is_visited_once_in_order(job, trainer):
    target, probe = job.small_target(), job.Noise(50)
    visited, first = [], {}

    def visit(rows, found):
        visited.append(rows.tolist())
        first.setdefault("outputs", dict(found))

    visit_outputs(target, probe, trainer, ["0", "4"], visit, torch.arange(3, 30), batch_size=10, skip=frozenset({1}))
    assert visited == [list(range(3, 13)), list(range(23, 30))]
    x = target.transform(probe.load(range(3, 13)))
    with torch.no_grad():
        # The ReLU after layer 0 works in place: what is shown is what the layer put out.
        torch.testing.assert_close(first["outputs"]["0"], target.module[0](x), atol=1e-5, rtol=1e-4)


def test_precision_does_not_spoil_the_network(job, trainer):
    target = job.small_target()
    kinds = set()

    def visit(_, found):
        kinds.add(found["0"].dtype)

    visit_outputs(target, job.Noise(20), lambda: trainer(precision="bf16-true"), ["0"], visit)
    assert kinds == {torch.bfloat16} and target.module[0].weight.dtype == torch.float32


class Generator(nn.Module):
    """From a latent and a class to maps of four cells."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Identity()

    def forward(self, z, y):
        return self.maps((z + y[:, None]).view(-1, 2, 2, 2))


def test_a_generator_takes_what_its_loader_gives(job, trainer):
    class Latents(job.Noise):
        def loader(self, transform, rows=None, **options):
            for images, numbers in super().loader(transform, rows, **options):
                del images
                yield (numbers.float()[:, None].expand(-1, 8), 100.0 * (numbers == 7)), numbers

    target = Target("generator", Generator(), Preprocess(), {"maps": "avg"})
    found = find_exemplars(target, Latents(20), trainer, k=2, rows=torch.arange(20))["maps"]
    assert found.rows.tolist() == [[7, 19]] * 2 and found.peaks[0].tolist() == [107, 19]


def test_mistakes_name_layer_and_network(job, trainer):
    with pytest.raises(UserError) as error:
        record(job.small_target(), job.Noise(20), trainer, {"0": "first"})
    assert str(error.value) == (
        "Layer `0` of small: pool=first needs tokens (images, tokens, units), but its output is (images, 8, 14, 14); "
        "use avg or max."
    )


class Odd(nn.Module):
    """Layers that cannot be relied on: tokens first, numbers drawn at random, whole numbers, one module for two."""

    def __init__(self, tokens: int = 16) -> None:
        super().__init__()
        self.tokens, self.act = tokens, nn.ReLU()
        self.first, self.drawn, self.whole = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, x):
        self.first(x.flatten(1)[:, : 4 * self.tokens].view(len(x), self.tokens, 4).transpose(0, 1))
        self.drawn(x.mean((2, 3)) + torch.rand(len(x), 3))
        self.whole((x.mean((2, 3)) * 255).long())
        return self.act(self.act(x - 0.5).mean((2, 3)) - 0.1)


@pytest.mark.parametrize("layer", ["first", "", "act"])
@pytest.mark.parametrize(
    ("images", "size", "tokens"), [(40, 16, 16), (32, 16, 16), (16, 16, 16), (30, 10, 3), (1, 1, 1)]
)
def test_a_layer_whose_first_axis_does_not_count_the_images_is_refused(job, trainer, layer, images, size, tokens):
    """Also where all batches are of one size and there are as many tokens as images in each."""
    target = Target("odd", Odd(tokens), Preprocess(), {layer: "avg"})
    if layer == "first":
        with pytest.raises(UserError, match=rf"`first` of odd puts out a tensor of shape \({tokens}, .* images"):
            record(target, job.Noise(images), trainer, batch_size=size)
    else:
        values = record(target, job.Noise(images), trainer, batch_size=size)[layer].values
        assert values.shape == (images, 3)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("drawn", "`drawn` of odd gives other values when the same images come again"),
        ("whole", "`whole` of odd puts out torch.int64; its values are taken as real numbers"),
        ("act", ""),
        ("act#1", ""),
        ("", ""),
    ],
)
def test_what_is_odd_is_said_once(job, trainer, caplog, layer, said):
    target = Target("odd", Odd(), Preprocess(), {layer: "avg"})
    with caplog.at_level("INFO", "neuronx"):
        values = record(target, job.Noise(50), trainer, batch_size=8)[layer].values
    assert len(caplog.messages) == bool(said) and said in "".join(caplog.messages)
    assert values.isfinite().all()


@pytest.mark.parametrize(
    ("layer", "says"), [("act", "`act` of odd runs 2 times in a forward pass; its last"), ("act#1", "")]
)
def test_a_layer_that_runs_twice_is_said_before_any_work(caplog, layer, says):
    with caplog.at_level("INFO", "neuronx"):
        try_layers(Target("odd", Odd(), Preprocess(), {layer: "avg"}))
    assert len(caplog.messages) == bool(says) and says in "".join(caplog.messages)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({"first": "avg"}, "first axis must count the images"),
        ({"act": "first"}, "`act` of odd: pool=first needs tokens"),
        ({"unused": "avg"}, "`unused` of odd never runs"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(layers, says):
    odd = Odd()
    odd.unused = nn.Identity()
    with pytest.raises(UserError, match=says):
        try_layers(Target("odd", odd, Preprocess(), layers))
    try_layers(Target("picky", nn.Linear(5, 2), Preprocess(), {"": "none"}))  # left to real pictures
