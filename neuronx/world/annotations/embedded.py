"""MILANNOTATIONS of the embedded world: small networks in the published layout, described from what is known.

Every published model has a counterpart: an AlexNet, a ResNet and a generator in both versions of the world, and a
Vision Transformer. Exemplars of classifiers are rendered pictures, whose regions are known; those of generators are
their own pictures, of which only what trained networks see in them can be said, and nothing else is claimed.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuronx.data.latents import LatentProbe, latent_probe
from neuronx.data.probe import Probe
from neuronx.errors import unknown
from neuronx.milannotations.dataset import Milannotations, join
from neuronx.milannotations.layer import read_ids
from neuronx.milannotations.published import ANNOTATIONS, GROUPS
from neuronx.milannotations.reading import read
from neuronx.milannotations.write import layer_folder, write_all
from neuronx.recording.exemplars import find_exemplars
from neuronx.store.cache import entry, read_or_build, write_atomic
from neuronx.store.checkpoints import find
from neuronx.store.processes import on_first, start
from neuronx.tables.csv import read_csv, write_csv
from neuronx.targets.target import Target
from neuronx.types import Cell, Plain, TrainerFactory
from neuronx.world import generator
from neuronx.world import networks as shapes
from neuronx.world.annotations.describe import describe
from neuronx.world.annotations.pixels import learn, of_pictures, of_scenes
from neuronx.world.annotations.sharing import Shared, base_rates, shared, sharing, words
from neuronx.world.pictures.probe import WORLDS, ShapesProbe, World
from neuronx.world.pictures.scene import PROBE, PROBE_OF_PLACES

log = logging.getLogger("neuronx")

VERSION = "3"
"""Version of the descriptions; increase it when they change, so that they are made anew."""
K, QUANTILE = 15, 0.99
PICTURES = 5000
"""Of which 80 % may be exemplars; the rest are test pictures."""
READER = "shapes_alexnet"
"""The classifier from whose layers colours and grounds of generated pictures are read."""
RATES_FROM = 400
"""Pictures that tell how common factors are."""
ABOUT = """Exemplars of small networks trained on the embedded world, in the layout of MILANNOTATIONS.

annotations.csv holds three descriptions of each unit. They were written by rules from what the regions share that the
masks show, not by people. truth.csv says what the rules found: the leading factor (empty for none), its share of the
masked pixels that have any value of its kind, its lift over the base rate, the share of exemplars that have such
pixels, all factors that are shared, and how the regions are known: `known` from the scenes that were rendered, `seen`
by trained networks in generated pictures, whose scenes nobody knows.
"""


@dataclass(frozen=True)
class Model:
    """One model of the embedded annotations.

    Attributes:
        checkpoint: Name of the shipped part.
        layers: That are described, and how many units of each, the first ones.
        world: The version of the world that it was trained on.
        witnesses: Of a generator, the classifiers that say what was painted; empty for classifiers.
        pictures: How many are looked at.
    """

    checkpoint: str
    layers: Mapping[str, int]
    world: World
    witnesses: tuple[str, ...] = ()
    pictures: int = PICTURES

    @cached_property
    def target(self) -> Target:
        """The network, with the units that are described."""
        load = generator.load if self.witnesses else shapes.load
        units = {layer: list(range(count)) for layer, count in self.layers.items()}
        # As published annotations have them, and as the shipped captioner was trained on.
        return replace(load(self.checkpoint, layers=list(self.layers)), units=units, masks="published")

    @cached_property
    def probe(self) -> Probe:
        """Rendered pictures of its world, or its own."""
        seed = PROBE_OF_PLACES if self.world.name == "places" else PROBE
        if self.witnesses:
            return latent_probe(self.target, self.pictures, seed)
        return ShapesProbe(self.pictures, seed, world=self.world.name)

    @property
    def facts(self) -> dict[str, Plain]:
        """All that its folder depends on."""
        files = [self.checkpoint, *([*self.witnesses, READER] if self.witnesses else ())]
        weights: list[Plain] = [sha256(find(name).read_bytes()).hexdigest() for name in files]
        facts: dict[str, Plain] = {"weights": weights, "layers": dict(self.layers)}
        return facts | {"probe": self.probe.fingerprint}


# All units, 1,248 in the base, which take 306 MB. A generator's last layer is left out: nearly all of it paints white.
_CONVOLUTIONS = {"conv1": 24, "conv2": 40, "conv3": 48, "conv4": 48, "conv5": 48}
_STAGES = {"conv1": 64, "layer1": 16, "layer2": 32, "layer3": 48, "layer4": 64}
_PAINTING = {"layer1": 128, "layer2": 64}
_BLOCKS = {f"blocks.{i}.mlp.act": 32 for i in range(4)}
_SHAPES, _PLACES = WORLDS["shapes"], WORLDS["places"]
MODELS: dict[str, Model] = {
    "alexnet/imagenet": Model("shapes_alexnet", _CONVOLUTIONS, _SHAPES),
    "alexnet/places365": Model("places_alexnet", _CONVOLUTIONS, _PLACES),
    "resnet152/imagenet": Model("shapes_resnet", _STAGES, _SHAPES),
    "resnet152/places365": Model("places_resnet", _STAGES, _PLACES),
    "biggan/imagenet": Model("shapes_gan", _PAINTING, _SHAPES, ("shapes_vit", "shapes_alexnet")),
    "biggan/places365": Model("places_gan", _PAINTING, _PLACES, ("places_alexnet",)),
    "dino_vits8/imagenet": Model("shapes_vit", _BLOCKS, _SHAPES),
}
"""Published model -> its counterpart."""


@dataclass(frozen=True)
class EmbeddedAnnotations:
    """Where `train.py milan=` and the experiments take the units of the embedded networks from.

    Attributes:
        domain: The kind of their pictures.
        encoder: The CLIP whose image encoder captioners of them use by default.
    """

    domain: str = "shapes"
    encoder: str = "shapes_explainer"

    def load(self, name: str, trainer: TrainerFactory) -> Milannotations:
        """The units of a key, such as `base` or `not-alexnet-imagenet`; only the models of this key are built."""
        keys = GROUPS.get(name, (name,))
        if not set(keys) <= MODELS.keys():
            raise unknown("set of embedded annotations", name, [*GROUPS, *MODELS])
        folders = {key: model_folder(key, trainer) for key in keys}
        return join([read(folder, model=key, annotation_count=ANNOTATIONS) for key, folder in folders.items()])

    def about(self, units: Milannotations) -> str:
        """What the units are, for cards."""
        networks = ", ".join(MODELS[key].checkpoint for key in units.models)
        return (
            f"{len(units)} units of small networks of the embedded world ({networks}), which rules, not people, "
            "described from what the pictures are known to show"
        )

    def truth(self, units: Milannotations) -> list[tuple[str, ...]]:
        """As `leading_factors`."""
        return leading_factors(units)


def leading_factors(units: Milannotations) -> list[tuple[str, ...]]:
    """For each unit the ways to say what its exemplars share first of all; () where they share nothing.

    Args:
        units: Of models whose folders have a `truth.csv`, as those of the embedded annotations do; others get ().
    """
    factors: dict[tuple[str, str, int], tuple[str, ...]] = {}
    for model, folder in dict.fromkeys((layer.model, layer.folder.parent) for layer in units.folders):
        if (folder / "truth.csv").is_file():
            for row in read_csv(folder / "truth.csv")[1]:
                if factor := row.cells["factor"]:
                    factors[model, row.cells["layer"], row.whole("unit")] = words(factor)
    places = [(units.model(index), units.unit(index)) for index in range(len(units))]
    return [factors.get((model, unit.layer, unit.index), ()) for model, unit in places]


def model_folder(key: str, trainer: TrainerFactory) -> Path:
    """The folder of one model in the published layout, made on first use and kept in the store.

    Args:
        key: Of `MODELS`.
        trainer: Makes the trainers that run the network.
    """
    start(trainer())
    model = MODELS[key]
    rules: dict[str, Plain] = {"version": VERSION, "k": K, "quantile": QUANTILE, "rates": RATES_FROM}
    place = entry("embedded_milannotations", {"model": key, **model.facts, **rules})
    return read_or_build(place, lambda folder: build(folder, key, model, trainer))


def build(folder: Path, name: str, model: Model, trainer: TrainerFactory) -> None:
    """Writes the folder of one model: layers, `truth.csv` and `annotations.csv`."""
    log.info("Exemplars and descriptions of %s (%s)", name, model.checkpoint)
    found = find_exemplars(model.target, model.probe, trainer, k=K, quantile=QUANTILE)
    write_all(folder, found, model.target, model.probe, trainer)
    on_first(lambda: _describe(folder, name, model))
    on_first(lambda: write_atomic(folder / "README.md", ABOUT.encode()))


def _describe(folder: Path, name: str, model: Model) -> None:
    look, truth, said = _looker(model), [], []
    base = base_rates(look(torch.arange(min(RATES_FROM, model.pictures))))
    units = model.target.units or {}
    places = {layer: layer_folder(folder, layer) for layer in units}
    ids = {layer: torch.from_numpy(read_ids(places[layer] / "ids.csv", len(units[layer]), K)) for layer in units}
    rows = torch.cat([each.flatten() for each in ids.values()]).unique()
    seen = look(rows)
    for layer, numbers in units.items():
        masks = torch.from_numpy(np.load(places[layer] / "masks.npy"))[:, :, 0]
        of = sharing(masks, torch.searchsorted(rows, ids[layer]), seen)
        for row, unit in enumerate(numbers):
            found = shared(of, row, base)
            said += [(layer, unit, text) for text in describe(of, row, found, f"{name} {layer} {unit}")]
            truth.append((layer, unit, *_truth(found), "seen" if model.witnesses else "known"))
    columns = ("layer", "unit", "factor", "share", "lift", "breadth", "named", "source")
    write_csv(folder / "truth.csv", columns, truth)
    write_csv(folder / "annotations.csv", ("layer", "unit", "summary"), said)


def _truth(found: list[Shared]) -> tuple[Cell, ...]:
    if not found:
        return "", None, None, None, ""
    lead, names = found[0], ";".join(one.factor.name for one in found)
    return lead.factor.name, *(round(value, 4) for value in (lead.share, lead.lift, lead.breadth)), names


def _looker(model: Model) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """From rows of a model's pictures to what they show."""
    probe = model.probe
    if isinstance(probe, ShapesProbe):
        return lambda rows: of_scenes(probe.scenes[rows])
    assert isinstance(probe, LatentProbe)
    reader, witnesses = learn(model.world, probe.seed, READER), [shapes.load(name) for name in model.witnesses]
    log.info("Of rendered pictures, %s of the pixels are read right", f"{reader.accuracy:.1%}")
    return lambda rows: of_pictures(probe, rows, model.world, reader, witnesses)
