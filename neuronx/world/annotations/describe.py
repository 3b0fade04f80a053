"""Sentences about what a unit's exemplars share, in three voices that differ as people do.

One names the leading factor only, one everything that is shared, one the leading factor and one more in words of its
own. Nothing is said that `sharing.shared` did not find, and what is true of many regions but not of most is said so.
"""

import math
import random
from collections.abc import Callable, Sequence

from neuronx.world.annotations.sharing import OF_OBJECTS, Shared, Sharing, words

_THINGS = ("things", "objects", "shapes")
_AREAS = ("areas", "patches", "parts of the background")
_ADJECTIVES = {
    "striped": ("striped",),
    "dotted": ("dotted", "spotted"),
    "checkered": ("checkered",),
    "medium": ("medium-sized",),
    "warm": ("warm-coloured",),
    "cool": ("cool-coloured",),
    "neutral": ("dull", "neutral"),
}
_MATTER = {
    "sky": ("sky", "clouds", "the sky"),
    "grass": ("grass", "a lawn", "green grass"),
    "sand": ("sand", "a sandy beach", "the sand"),
    "brick": ("bricks", "a brick wall", "brick"),
    "water": ("water", "waves", "blue water"),
    "night": ("the night", "darkness", "a dark night"),
    "wood": ("wood", "wooden planks", "planks"),
    "paper": ("paper", "lined paper", "a sheet of paper"),
}
_GROUND = {
    "sky": ("in the sky", "against the sky"),
    "grass": ("on grass", "on a lawn"),
    "sand": ("on sand", "on a beach"),
    "brick": ("on brick", "on a brick wall"),
    "water": ("on water", "over waves"),
    "night": ("at night", "in darkness"),
    "wood": ("on wood", "on wooden planks"),
    "paper": ("on paper", "on lined paper"),
}
_CELL = {
    "top": ("at the top", "in the upper part"),
    "bottom": ("at the bottom", "in the lower part"),
    "left": ("on the left", "in the left-hand part"),
    "right": ("on the right", "in the right-hand part"),
    "centre": ("in the centre", "in the middle"),
}
_NUMBER = {
    "one": ("one object alone", "a single object", "a lone object"),
    "two": ("two objects", "a pair of things", "two things"),
    "three": ("three objects", "a trio of things", "three things"),
}
_NOTHING = {
    "dark": ("nothing", "nothing is highlighted", "no part of the pictures"),
    "objects": ("various shapes", "all kinds of shapes", "different objects", "objects of many colours"),
    "ground": ("various backgrounds", "empty areas", "background without objects", "different backgrounds"),
    "any": ("nothing in particular", "no clear pattern", "many different things", "parts of various pictures"),
}
MOST, MANY, LEAST = 0.75, 0.55, 0.35
"""Thresholds on the share of exemplars: stated plainly, with "mostly", with "often", or not at all."""
GROUND_ONLY = 0.25
"""Where objects have less than this share of what is masked, the ground is what is described."""
TOGETHER = 0.7
"""Factors are one phrase, as in "red circles", if they meet on this share of the rarer one's pixels."""

LONGEST = 3
"""Factors in a sentence."""
VARIED = 0.3
"""Objects differ in colour or shape where none has as large a share as this."""

Choose = Callable[[Sequence[str]], str]


def describe(of: Sharing, unit: int, found: Sequence[Shared], key: str) -> tuple[str, str, str]:
    """Three descriptions of a unit.

    Args:
        of: What is under the masks of its layer.
        unit: Its row there.
        found: What its exemplars share; from `shared`.
        key: Decides about words and who speaks first; the same key gives the same words.
    """
    draw = random.Random(key)
    if not found:
        first, second, third = draw.sample(_NOTHING[_of_what(of, unit)], 3)
        return first, second, third
    some = [_chosen(of, unit, found, limit) for limit in (1, 2, LONGEST)]
    said = [_sentence(of, unit, each, draw.choice) for each in some]
    # People rarely use the very same words.
    for again in (1, 2):
        for _ in range(8):
            if said[again] in said[:again]:
                said[again] = _sentence(of, unit, some[again], draw.choice)
    draw.shuffle(said)
    first, second, third = said
    return first, second, third


def _chosen(of: Sharing, unit: int, found: Sequence[Shared], limit: int) -> list[Shared]:
    """The leading factors that are true together of enough of the exemplars."""
    chosen = [found[0]]
    for one in found[1:]:
        if len(chosen) < limit and _joint(of, unit, [*chosen, one]) >= LEAST:
            chosen.append(one)
    return chosen


def _joint(of: Sharing, unit: int, found: Sequence[Shared]) -> float:
    """Of how much of the exemplars factors are true together, those apart that are not said to be; in [0, 1]."""
    objects = _meeting(of, unit, found)
    shares = [one.typical for one in found if one.factor.kind not in OF_OBJECTS]
    if objects:
        shares.append(of.together(unit, [one.factor for one in objects]) * objects[0].breadth)
    return math.prod(shares)


def _meeting(of: Sharing, unit: int, found: Sequence[Shared]) -> list[Shared]:
    """The factors of objects that meet the first of them: "red" and "circle", if it is red circles."""
    objects = [one for one in found if one.factor.kind in OF_OBJECTS]
    meeting = objects[:1]
    for one in objects[1:]:
        together = of.together(unit, [each.factor for each in (*meeting, one)])
        if together >= TOGETHER * min(each.share for each in (*meeting, one)):
            meeting.append(one)
    return meeting


def _of_what(of: Sharing, unit: int) -> str:
    """What is masked where nothing is shared."""
    if not of.exemplars[unit]:
        return "dark"
    cover = of.cover(unit, "colour")
    return "objects" if cover > 0.7 else "ground" if cover < 0.1 else "any"


def _sentence(of: Sharing, unit: int, found: Sequence[Shared], choose: Choose) -> str:
    mine = {one.factor.kind: one.factor.name for one in found}
    ground, number, cell, edge = (mine.get(kind) for kind in ("background", "number", "cell", "edge"))
    objects = _meeting(of, unit, found)
    apart = [one for one in found if one.factor.kind in OF_OBJECTS and one not in objects]
    on_ground = of.cover(unit, "colour") < GROUND_ONLY
    if len(objects) == 1 and len(found) == 1:
        return choose(_ways(of, unit, objects[0], choose))
    if objects:
        said = _phrase(objects, choose)
    elif ground and not edge and on_ground:
        said, ground = choose(_MATTER[ground]), None
    elif number and not edge:
        said, number = choose(_NUMBER[number]), None
    else:
        said = choose(_AREAS if on_ground and not edge else _THINGS)
    said = f"{choose(words(edge))}s of {said}" if edge else said
    said += f" {choose(_GROUND[ground])}" if ground else ""
    said += f" {choose(_CELL[cell])}" if cell else ""
    said += f", {choose(_NUMBER[number])} in a picture" if number else ""
    said += "".join(f", often {_alone(one, choose)}" for one in apart)
    return _often_by(_joint(of, unit, found)) + said


def _ways(of: Sharing, unit: int, one: Shared, choose: Choose) -> list[str]:
    """Ways to say that regions are parts of objects of one factor, and of none other that is shared."""
    often, phrase, kind = _often_by(one.typical), _phrase([one], choose), one.factor.kind
    ways = [often + phrase] * 2 + [f"parts of {often}{phrase}"]
    if kind == "colour" and len(one.factor.members) == 1:
        ways += [f"{often}{_adjective(one, choose)} areas", f"{often}the colour {_adjective(one, choose)}"]
    if kind == "texture":
        ways += [f"{often}{_adjective(one, choose)} {noun}" for noun in ("surfaces", "patterns")]
    others = [other for other in ("colour", "shape") if _varied(of, unit, other)]
    return ways + [f"{often}{phrase} of different {other}s" for other in others]


def _varied(of: Sharing, unit: int, kind: str) -> bool:
    """Whether objects under the masks differ in a kind of factor, as far as it is known of them."""
    mine = of.shares[kind][unit, :-1]
    known = float(mine.sum())
    return known > 0.8 * of.cover(unit, "colour") and float(mine.max()) < VARIED * known


def _phrase(objects: Sequence[Shared], choose: Choose) -> str:
    """Such as "small striped red circles"."""
    order = {"size": 0, "texture": 1, "colour": 2, "shape": 3}
    parts = sorted(objects, key=lambda one: order[one.factor.kind])
    noun = choose(_THINGS)
    if parts[-1].factor.kind == "shape" and len(parts[-1].factor.members) == 1:
        noun = _plural(choose(words(parts.pop().factor.name)))
    # "Round red things", not "red round things".
    parts.sort(key=lambda one: 1.5 if one.factor.kind == "shape" else order[one.factor.kind])
    return " ".join([*(_adjective(one, choose) for one in parts), noun])


def _alone(one: Shared, choose: Choose) -> str:
    single = one.factor.kind == "shape" and len(one.factor.members) == 1
    return _plural(choose(words(one.factor.name))) if single else _adjective(one, choose)


def _adjective(one: Shared, choose: Choose) -> str:
    return choose(_ADJECTIVES.get(one.factor.name, words(one.factor.name)))


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")


def _often_by(share: float) -> str:
    return "" if share >= MOST else "mostly " if share >= MANY else "often "
