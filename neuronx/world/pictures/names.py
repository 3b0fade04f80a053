"""The factors of a scene, by name. The order is part of the world: factor tensors hold indices into these tuples."""

SHAPES = (
    "circle",
    "ring",
    "crescent",
    "heart",
    "drop",
    "square",
    "triangle",
    "diamond",
    "hexagon",
    "star",
    "cross",
    "arrow",
)
COLOURS = (
    "red",
    "orange",
    "yellow",
    "pink",
    "green",
    "cyan",
    "blue",
    "purple",
    "brown",
    "black",
    "white",
    "grey",
)
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
