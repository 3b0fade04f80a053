"""The names of what there is in the pictures, and scenes made of it, drawn from (seed, index) alone on any machine."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from neuronx.targets.latents import pick, uniforms

SHAPES = (
    "circle", "ring", "crescent", "heart", "drop", "square",
    "triangle", "diamond", "hexagon", "star", "cross", "arrow",
)  # fmt: skip
COLOURS = (
    "red", "orange", "yellow", "pink", "green", "cyan",
    "blue", "purple", "brown", "black", "white", "grey",
)  # fmt: skip
TEXTURES = ("plain", "striped", "dotted", "checkered")
SIZES = ("small", "medium", "large")
BACKGROUNDS = ("sky", "grass", "sand", "brick", "water", "night", "wood", "paper")
PLACES = ("left", "right", "top", "bottom", "centre")
NUMBERS = ("one", "two", "three")

SHAPE_FAMILIES = {
    "round": ("circle", "ring", "crescent", "heart", "drop"),
    "polygon": ("square", "triangle", "diamond", "hexagon", "star", "cross", "arrow"),
    "pointed": ("triangle", "diamond", "star", "arrow"),
}
COLOUR_FAMILIES = {
    "warm": ("red", "orange", "yellow", "pink"),
    "cool": ("green", "cyan", "blue", "purple"),
    "neutral": ("brown", "black", "white", "grey"),
}
FAMILIES = {
    "round shape": "round",
    "polygon": "polygon",
    "pointed shape": "pointed",
    "warm colour": "warm",
    "cool colour": "cool",
    "neutral colour": "neutral",
}
"""How a family is written as a concept, to the word that stands for it in any phrase."""

CLASS_NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
"""A picture's class is its main (largest) object; class index = colour index * 12 + shape index."""


def _classes(colours: tuple[str, ...], shapes: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(CLASS_NAMES.index(f"{colour} {shape}") for colour in colours for shape in shapes)


HIERARCHY: dict[str, tuple[int, ...]] = (
    {shape: _classes(COLOURS, (shape,)) for shape in SHAPES}
    | {colour: _classes((colour,), SHAPES) for colour in COLOURS}
    | {name: _classes(COLOURS, SHAPE_FAMILIES[w]) for name, w in FAMILIES.items() if w in SHAPE_FAMILIES}
    | {name: _classes(COLOUR_FAMILIES[w], SHAPES) for name, w in FAMILIES.items() if w in COLOUR_FAMILIES}
)
"""Superclass name to the classes that it covers: every shape, every colour, and the families of both."""


_MEANS = """
grey: gray; circle: disc; ring: hoop; crescent: moon; drop: teardrop; cross: plus; striped: stripe; dotted: spotted
dot; checkered: check; plain: solid; small: tiny little; large: big; sky: cloud; grass: lawn; sand: beach sandy;
water: wave; night: darkness; wood: plank wooden; one: single lone; two: pair; three: trio; round: rounded curved;
polygon: straight angular; pointed: spiky; neutral: dull; top: upper; bottom: lower; centre: middle; object: thing
"""
MEANING = {
    word: meant
    for entry in _MEANS.split(";")
    for meant, words in [map(str.strip, entry.split(":"))]
    for word in words.split()
}
"""Everyday word -> the world's, both in the singular."""


def reading(word: str, known: Collection[str]) -> str | None:
    """The known word that stands for a word: itself, its singular, or what either means; None if there is none.

    Args:
        word: In lower case.
        known: The words that somebody knows.
    """
    for form in dict.fromkeys((word, word.removesuffix("s"), word.removesuffix("es"))):
        for meant in (form, MEANING.get(form)):
            if meant in known:
                return meant
    return None


_WORDS = """
accordion airplane almond ambulance anchor ant antelope anvil apron armchair artichoke asparagus avocado axe
backpack badger bagel bagpipe bakery balcony banjo barber barn basil basket bassoon bathtub beaver bedroom beetle
bicycle binoculars biscuit bishop blender blouse bobsled bonfire bookcase bottle bracelet bread bridge broccoli
broom bucket buffalo bulldozer burrito bus butcher butterfly cabbage cactus calculator camel camera candle canoe
canyon carpet carrot castle cathedral cello chainsaw chandelier cheese cheetah chef chimney chipmunk cinema clarinet
cliff coconut coffee comb compass corridor cottage cow coyote crab cradle cricket crocodile cucumber cupboard curry
cyclist dancer dentist desk dolphin donkey doorway dragonfly drill drum duck dumpling eagle earring eel eggplant
elbow elephant elevator engine envelope escalator faucet fence ferret ferry firefighter flamingo flute forest fork
fountain fox freezer fridge frog garage garlic giraffe glove goat goggles goldfish gorilla grapefruit guitar
hairdryer hammer hammock hamster harbour harmonica harp hedgehog helicopter helmet heron hippo hockey horse hospital
hotel hyena iguana jacket jaguar jeep jellyfish judo juggler kangaroo kayak kettle keyboard kitchen kitten knife
koala ladder ladle lamp lantern laptop lasagne lawyer lemur leopard library lighthouse lizard llama lobster
locomotive lorry magnet mailbox mandolin marathon mattress melon microphone microscope minivan mitten monkey moose
mosque mosquito motorcycle mug mushroom nurse oboe octopus omelette onion orchestra ostrich otter oven owl oyster
paddle pancake panda parachute parrot peacock pelican penguin piano pigeon pillow pineapple pizza plumber porcupine
pretzel printer pumpkin puppy quilt rabbit raccoon radio radish railway referee rhino rifle robot rooster rucksack
sailor salmon sandal sandwich saxophone scarf scissors scooter scorpion seahorse sewing shark sheep shovel
skateboard skier skunk snail snorkel sofa spaniel sparrow spatula spider spinach squid squirrel stapler statue
stethoscope stork stove submarine suitcase surgeon swan sweater syringe tambourine taxi teapot telephone temple
tennis termite terrier toaster tobacco toilet tomato toothbrush tractor trombone trousers trumpet tuba turkey
"""

DISTRACTORS: tuple[str, ...] = tuple(_WORDS.split())


SIDE = 64
"""Pixels a side."""
OBJECTS = 3
"""The most objects in a picture; absent ones have -1 in every categorical factor."""
SHEET = 128
"""Side of the sheet that a background's window is cut from."""
TURNS = 64
"""Number of rotations, from -TILT to TILT."""

PROBE, PROBE_OF_PLACES = 7, 8
"""Seeds of the pictures on which units are explained and scored, in the world of shapes and of places."""
BANK, POOL = 9001, 9002
"""Seeds of the scenes in which single attributes change, and of the pool that explanations are tried on."""

Layouts = tuple[tuple[tuple[int, ...], float], ...]
"""Sizes of the objects, main first, and how often. The main object is always the only one of its size."""
_SMALL, _MEDIUM, _LARGE = range(len(SIZES))
LAYOUTS: Layouts = (
    ((_LARGE,), 0.20),
    ((_MEDIUM,), 0.14),
    ((_SMALL,), 0.10),
    ((_LARGE, _MEDIUM), 0.10),
    ((_LARGE, _SMALL), 0.16),
    ((_MEDIUM, _SMALL), 0.16),
    ((_MEDIUM, _SMALL, _SMALL), 0.14),
)
RADII = ((11.0, 12.0), (14.5, 15.5), (18.75, 20.0))
"""Smallest and largest radius of each size, in pixels: large enough to tell a hexagon from a circle at 64 pixels."""
_TRIES = 64
"""Arrangements drawn for each picture; the first without overlap is taken, or else the one with the least."""


@dataclass(frozen=True)
class Scenes:
    """The factors of B pictures. Objects are in order of size: slot 0 is the main one, later ones lie on top.

    Attributes:
        shape: (B, 3) int64 into SHAPES; -1 where there is no object, also in the next four.
        colour: (B, 3) int64 into COLOURS.
        texture: (B, 3) int64 into TEXTURES.
        size: (B, 3) int64 into SIZES.
        place: (B, 3) int64, cell of a 3 x 3 grid in reading order: 0 top left, 4 centre, 8 bottom right.
        background: (B,) int64 into BACKGROUNDS.
        x: (B, 3) float32, centre from the left in pixels.
        y: (B, 3) float32, centre from the top in pixels.
        radius: (B, 3) float32 in pixels.
        turn: (B, 3) int64, step of rotation in [0, TURNS).
        tint: (B, 3, 3) float32, factors on the red, green and blue of each object.
        window: (B, 2) int64, top left corner in the background's sheet.
        light: (B,) float32, factor on the background's brightness.
        voice: (B,) float32 in [0, 1), chooses the wording of the caption.
    """

    shape: Tensor
    colour: Tensor
    texture: Tensor
    size: Tensor
    place: Tensor
    background: Tensor
    x: Tensor
    y: Tensor
    radius: Tensor
    turn: Tensor
    tint: Tensor
    window: Tensor
    light: Tensor
    voice: Tensor

    def __len__(self) -> int:
        return len(self.background)

    def __getitem__(self, rows: "Tensor | slice | Sequence[int]") -> "Scenes":
        """The scenes of some rows (indices, a mask or a slice)."""
        return Scenes(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device: "torch.device | str") -> "Scenes":
        """The same scenes on another device."""
        return Scenes(*(getattr(self, field.name).to(device) for field in fields(self)))

    @property
    def count(self) -> Tensor:
        """(B,) int64, number of objects."""
        return (self.shape >= 0).sum(1)


def sample(seed: int, indices: Tensor, layouts: Layouts = LAYOUTS) -> Scenes:
    """Draws the scenes of some indices; each depends on (seed, index) and on nothing else.

    Args:
        seed: Of the world; see `neuronx.world.pictures.probe`.
        indices: (B,) int64, on the device where the scenes shall live.
        layouts: Of the version of the world; see `neuronx.world.pictures.probe`.
    """
    draws = uniforms(seed, indices, 40 + _TRIES * OBJECTS * 3)
    few, many = draws[:, :40], draws[:, 40:].reshape(-1, _TRIES, OBJECTS, 3)
    layout = _layout(few[:, 0], layouts)
    present = layout >= 0

    def factor(first: int, n: int) -> Tensor:
        return torch.where(present, pick(few[:, first : first + OBJECTS], n), -1)

    low, high = torch.tensor(RADII, device=indices.device)[layout.clamp(min=0)].unbind(2)
    radius = low + (high - low) * few[:, 1:4]
    place, x, y = _arrange(many, radius, present)
    return Scenes(
        shape=factor(4, len(SHAPES)),
        colour=factor(7, len(COLOURS)),
        texture=factor(10, len(TEXTURES)),
        size=layout,
        place=place,
        background=pick(few[:, 13], len(BACKGROUNDS)),
        x=x,
        y=y,
        radius=radius,
        turn=pick(few[:, 14:17], TURNS),
        tint=0.94 + 0.12 * few[:, 17:26].reshape(-1, OBJECTS, 3),
        window=pick(few[:, 26:28], SHEET - SIDE + 1),
        light=0.88 + 0.2 * few[:, 28],
        voice=few[:, 29],
    )


def _layout(uniform: Tensor, layouts: Layouts) -> Tensor:
    """From (B,) uniform numbers to the sizes (B, 3) of the objects, -1 for none."""
    sizes = torch.tensor([(*sizes, -1, -1)[:OBJECTS] for sizes, _ in layouts], device=uniform.device)
    edges, total = [], 0.0
    for _, share in layouts[:-1]:
        total += share
        edges.append(total)
    return sizes[(uniform[:, None] >= torch.tensor(edges, device=uniform.device)).sum(1)]


def _arrange(draws: Tensor, radius: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Chooses the places: (B, 3) grid cells, and centres x and y in pixels.

    An object of the middle column stands at most 3 pixels off the middle, one of an outer column at least 8.
    """
    cell = pick(draws[..., 0], 9)
    reach = (30.0 - radius).clamp(min=8.0)[:, None]

    def centre(side: Tensor, uniform: Tensor) -> Tensor:
        inner = uniform * 6.0 - 3.0
        outer = side * (8.0 + (reach - 8.0) * uniform)
        return SIDE / 2 + torch.where(side == 0, inner, outer)

    x, y = centre(cell % 3 - 1, draws[..., 1]), centre(cell // 3 - 1, draws[..., 2])
    overlap = torch.zeros_like(x[..., 0])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        across, down = x[..., a] - x[..., b], y[..., a] - y[..., b]
        gap = (across * across + down * down).sqrt() - (radius[:, a] + radius[:, b])[:, None]
        overlap = overlap + torch.where((present[:, a] & present[:, b])[:, None], (-gap).clamp(min=0), 0.0)
    best = overlap.argmin(1)
    rows = torch.arange(len(best), device=best.device)
    return torch.where(present, cell[rows, best], -1), x[rows, best], y[rows, best]
