"""The words of the world: the factors of a scene by name, and what people call them otherwise.

The order is part of the world: factor tensors hold indices into these tuples.
"""

from collections.abc import Collection

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
