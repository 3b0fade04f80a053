"""A generator's own pictures as a probe."""

import pytest
import torch
from torch import nn

from neuronx.data.latents import latent_probe
from neuronx.errors import UserError
from neuronx.recording.exemplars import find_exemplars
from neuronx.recording.record import record
from neuronx.targets import generator
from neuronx.targets.latents import Latents
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target


class Painter(nn.Module):
    """From z (B, 6), and perhaps classes, to pictures (B, 3, 8, 8) in (-1, 1)."""

    def __init__(self, classes: int = 0, one_hot: bool = False) -> None:
        super().__init__()
        self.start = nn.Linear(6, 5 * 16)
        self.embed = (nn.Linear if one_hot else nn.Embedding)(classes, 5 * 16) if classes else None
        self.maps = nn.Sequential(nn.BatchNorm2d(5), nn.ReLU())
        self.paint = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(5, 3, 3, padding=1), nn.Tanh())

    def forward(self, z, y=None):
        start = self.start(z) if self.embed is None else self.start(z) + self.embed(y)
        return self.paint(self.maps(start.view(-1, 5, 4, 4)))


def painter(classes=0, one_hot=False, **options) -> Target:
    torch.manual_seed(0)
    module = Painter(classes, one_hot).train()
    return generator.load(
        module, latent_dim=6, classes=classes or None, one_hot=one_hot, layers={"maps": "avg"}, **options
    )


def test_a_row_is_the_same_whatever_is_drawn_with_it():
    latents = Latents(((3,), (2, 2)), classes=5)
    one, two, classes = latents.draw(torch.arange(40), 9)
    assert (one.shape, two.shape, classes.dtype) == ((40, 3), (40, 2, 2), torch.int64)
    for part, whole in zip(latents.draw(torch.tensor([31, 7]), 9), (one, two, classes), strict=True):
        assert torch.equal(part, whole[[31, 7]])
    assert not torch.equal(latents.draw(torch.arange(40), 10)[0], one)
    # Neither the class nor what comes after it changes the first numbers.
    assert torch.equal(Latents(((3,),)).draw(torch.arange(40), 9), one)
    assert torch.equal(latents.labels(torch.arange(40), 9), classes)


def test_vectors_are_normal_and_classes_even():
    z, y = Latents(((4,),), classes=5).draw(torch.arange(20000), 0)
    assert z.mean().abs() < 0.02 and (z.std() - 1).abs() < 0.02 and z.abs().max() > 4
    assert (torch.corrcoef(torch.cat([z, y[:, None].float()], 1).T) - torch.eye(5)).abs().max() < 0.03
    assert y.bincount().min() > 3700 and len(y.bincount()) == 5
    # The standard deviation of a normal number between -1 and 1.
    cut = Latents(((4,),), truncation=1.0, scale=0.5).draw(torch.arange(20000), 0)
    assert cut.abs().max() <= 0.5 and (cut.std() - 0.5 * 0.5396).abs() < 0.01


def test_classes_may_be_rows_with_a_single_one():
    _, y = Latents(((2,),), classes=3, one_hot=True).draw(torch.arange(9), 1)
    assert y.shape == (9, 3) and torch.equal(y.argmax(1), Latents(((2,),), classes=3).draw(torch.arange(9), 1)[1])


def test_pictures_span_the_output_range():
    outputs = torch.tensor([-1.0, -0.999, 0.0, 1.0, 7.0]).view(1, 1, 1, 5)
    pictures = Latents(((2,),)).pictures((outputs, "more"))
    assert pictures.shape == (1, 3, 1, 5) and pictures[0, 2, 0].tolist() == [0, 0, 128, 255, 255]
    assert Latents(((2,),), output_range=(0, 1)).pictures(outputs)[0, 0, 0].tolist() == [0, 0, 0, 255, 255]
    with pytest.raises(UserError, match=r"pictures \(B, 3, H, W\).*\(4, 2\)"):
        Latents(((2,),)).pictures(torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"shapes": ()}, "length"),
        ({"shapes": ((0,),)}, "length"),
        ({"classes": 3, "class_names": ("one",)}, "3 classes"),
        ({"truncation": 0.0}, "truncation"),
        ({"output_range": (1, 1)}, "output_range"),
    ],
)
def test_descriptions_that_cannot_be(wrong, says):
    with pytest.raises(UserError, match=says):
        Latents(**({"shapes": ((2,),)} | wrong))


@pytest.mark.parametrize("target", [painter(), painter(4), painter(4, one_hot=True)], ids=["z", "z and y", "one hot"])
def test_pictures_do_not_depend_on_what_is_made_with_them(target):
    probe = latent_probe(target, 100, seed=3)
    whole = probe.load(range(100))
    assert whole.shape == (100, 3, 8, 8) and whole.dtype == torch.uint8 and len(whole.unique(dim=0)) == 100
    assert torch.equal(probe.load([70, 3]), whole[[70, 3]])
    batches = [torch.cat([part for part, _ in probe.loader(Preprocess(), batch_size=size)]) for size in (7, 64)]
    assert torch.equal(*batches)
    torch.testing.assert_close(batches[0], whole / 255)
    assert not target.module.training


def test_a_generator_gets_latents_and_every_other_network_pictures(trainer):
    target = painter(4)
    probe = latent_probe(target, 30)
    (z, y), rows = next(iter(probe.loader(target.transform, batch_size=8)))
    assert (z.shape, y.shape, rows.tolist()) == ((8, 6), (8,), list(range(8)))
    layer = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    looker = Target("looker", layer, Preprocess(), {"0": "max"})
    assert record(looker, probe, trainer)["0"].values.shape == (30, 2)
    with pytest.raises(UserError, match="no generator"):
        latent_probe(looker)
    with pytest.raises(UserError, match="latents, not pictures"):
        target.transform(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_labels_splits_and_fingerprint_say_what_the_pictures_are():
    target, probe = painter(4), latent_probe(painter(4), 50, seed=1)
    assert torch.equal(probe.labels, target.transform.labels(torch.arange(50), 1))
    assert probe.class_names == ("class 0", "class 1", "class 2", "class 3") and probe.domain == "natural"
    assert torch.equal(probe.split("train", "val", "test"), torch.arange(50))
    assert latent_probe(painter(), 50).labels is None
    prints = {
        latent_probe(*args).fingerprint
        for args in [(target, 50, 1), (target, 50, 2), (target, 51, 1), (painter(4, truncation=2.0), 50, 1)]
    }
    assert len(prints) == 4 and probe.fingerprint in prints
    assert latent_probe(painter(4, hierarchy={"even": [0, 2]}), 50).hierarchy == {"even": [0, 2]}
    for size, seed in ((0, 0), (5, -1)):
        with pytest.raises(UserError, match="at least"):
            latent_probe(target, size, seed)


def test_units_are_recorded_and_have_exemplars_among_the_generators_own_pictures(trainer):
    target = painter(4)
    probe = latent_probe(target, 60)
    z, y = probe.draw(range(60))
    with torch.no_grad():
        maps = target.module.maps((target.module.start(z) + target.module.embed(y)).view(-1, 5, 4, 4))
    found = record(target, probe, trainer, batch_size=16)["maps"]
    torch.testing.assert_close(found.values.clone(), maps.mean((2, 3)))
    exemplars = find_exemplars(target, probe, trainer, k=5)["maps"]
    rows = probe.split("train", "val")
    peaks = maps[rows].flatten(2).amax(2)
    assert torch.equal(exemplars.rows, rows[peaks.topk(5, 0).indices.T]) and exemplars.grid == (4, 4)
    assert probe.load(exemplars.rows[0].tolist()).shape == (5, 3, 8, 8)
