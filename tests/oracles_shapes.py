"""The embedded world again, slowly: point-in-polygon outlines in NumPy, and phrases checked word by word."""

import math

import numpy as np

from neuronx.world.pictures.scene import (
    BACKGROUNDS,
    COLOUR_FAMILIES,
    COLOURS,
    NUMBERS,
    SHAPE_FAMILIES,
    SHAPES,
    SIZES,
    TEXTURES,
)


def polygon(*corners):
    """Membership in a polygon by crossing number."""

    def inside(x, y):
        odd = np.zeros_like(x, dtype=bool)
        for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
            if y1 != y2:
                odd ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
        return odd

    return inside


def disc(cx, cy, r):
    return lambda x, y: (x - cx) ** 2 + (y - cy) ** 2 <= r * r


def union(*parts):
    return lambda x, y: np.logical_or.reduce([part(x, y) for part in parts])


def without(a, b):
    return lambda x, y: a(x, y) & ~b(x, y)


def rounded(part, r=1.06):
    """Tips end at the circle around the shape."""
    return lambda x, y: part(x, y) & (np.hypot(x, y) <= r)


def ngon(n, r, first=90.0):
    return [
        (r * math.cos(math.radians(first + 360 * k / n)), r * math.sin(math.radians(first + 360 * k / n)))
        for k in range(n)
    ]


def box(left, bottom, right, top):
    return polygon((left, bottom), (right, bottom), (right, top), (left, top))


DIAGONAL = 0.57 * math.sqrt(2)
STAR = [p for tip, notch in zip(ngon(5, 1.05), ngon(5, 0.5, 126), strict=True) for p in (tip, notch)]
MEMBERS = {
    "circle": disc(0, 0, 0.9),
    "ring": without(disc(0, 0, 0.98), disc(0, 0, 0.49)),
    "crescent": without(disc(0, 0, 0.98), disc(0.42, 0.26, 0.68)),
    "heart": union(
        polygon((0, -0.12 - DIAGONAL), (DIAGONAL, -0.12), (0, -0.12 + DIAGONAL), (-DIAGONAL, -0.12)),
        disc(0.403, 0.403 - 0.12, 0.57),
        disc(-0.403, 0.403 - 0.12, 0.57),
    ),
    "drop": union(
        disc(0, -0.34, 0.64),
        polygon((0, 0.94), (0.64 * 0.8660254, 0.32 - 0.34), (-0.64 * 0.8660254, 0.32 - 0.34)),
    ),
    "square": box(-0.75, -0.75, 0.75, 0.75),
    "triangle": rounded(polygon(*[(x, y - 0.16) for x, y in ngon(3, 1.12)])),
    "diamond": polygon((0, 0.58 / 0.5547), (0.58 / 0.83205, 0), (0, -0.58 / 0.5547), (-0.58 / 0.83205, 0)),
    "hexagon": polygon(*ngon(6, 0.83 / math.cos(math.pi / 6), 0)),
    "star": polygon(*STAR),
    "cross": union(box(-0.31, -0.96, 0.31, 0.96), box(-0.96, -0.31, 0.96, 0.31)),
    "arrow": union(polygon((1, 0), (-0.02, 0.85), (-0.02, -0.85)), box(-0.98, -0.3, 0.3, 0.3)),
}


def ids(scenes, row, side=64, tilt=14.0, turns=64):
    """The map of objects (side, side) of one picture; later objects lie on top."""
    down, right = np.mgrid[:side, :side] + 0.5
    picture = np.zeros((side, side), dtype=np.uint8)
    for slot in range(3):
        if scenes.shape[row, slot] < 0:
            continue
        angle = math.radians(tilt * (2 * int(scenes.turn[row, slot]) / (turns - 1) - 1))
        # Rotation is seen on a screen, where y points down; the shape's own y points up.
        across, below = right - float(scenes.x[row, slot]), down - float(scenes.y[row, slot])
        x = across * math.cos(angle) + below * math.sin(angle)
        y = across * math.sin(angle) - below * math.cos(angle)
        r = float(scenes.radius[row, slot])
        member = MEMBERS[SHAPES[int(scenes.shape[row, slot])]](x / r, y / r)
        picture[member] = slot + 1
    return picture


def objects(scenes, row):
    """The words that fit each object of one picture, and those that fit the picture."""
    found = []
    for slot in range(3):
        shape, colour, texture, size, place = (
            int(getattr(scenes, name)[row, slot]) for name in ("shape", "colour", "texture", "size", "place")
        )
        if shape < 0:
            continue
        words = {SHAPES[shape], COLOURS[colour], TEXTURES[texture], SIZES[size]}
        words |= {family for family, members in SHAPE_FAMILIES.items() if SHAPES[shape] in members}
        words |= {family for family, members in COLOUR_FAMILIES.items() if COLOURS[colour] in members}
        words |= {"left"} if place % 3 == 0 else {"right"} if place % 3 == 2 else set()
        words |= {"top"} if place < 3 else {"bottom"} if place > 5 else set()
        words |= {"centre"} if place == 4 else set()
        found.append(words)
    return found, {BACKGROUNDS[int(scenes.background[row])], NUMBERS[len(found) - 1]}


_LITTLE_WORDS = "a an the on in at of with against background wall colour shape object objects"
LITTLE = set(_LITTLE_WORDS.split())


def presence(scenes, row, phrase):
    """Whether one phrase is true of one picture."""
    found, scene = objects(scenes, row)
    for part in phrase.replace(",", " and ").split(" and "):
        words = set(part.split()) - LITTLE
        if not words or not any(words <= each | scene for each in found):
            return False
    return True
