"""Sentences about what a unit's exemplars share, in three voices that differ as people do.

One names the leading factor only, one everything that is shared, one the leading factor and one more in words of its
own. Nothing is said that `sharing.shared` did not find, and what is true of many regions but not of most is said so.
"""

import random
from collections.abc import Callable, Sequence

from neuronx.milannotations.factors import OF_OBJECTS, words
from neuronx.milannotations.sharing import Shared, Sharing

_THINGS = ("things", "objects", "shapes")
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
MOST, MANY = 0.75, 0.55
"""From this share on a factor is stated plainly, and from this on as what most regions show."""
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
        said = draw.sample(_NOTHING[_of_what(of, unit)], 3)
    else:
        lead = found[0]
        one_more = found[:2]
        everything = [lead, *(one for one in found[1:] if one.share >= MANY)][:LONGEST]
        said = [_sentence(of, unit, some, draw.choice) for some in ([lead], one_more, everything)]
        # People rarely use the very same words.
        for again in (1, 2):
            for _ in range(8):
                if said[again] not in said[:again]:
                    break
                said[again] = _sentence(of, unit, (one_more, everything)[again - 1], draw.choice)
        draw.shuffle(said)
    first, second, third = said
    return first, second, third


def _of_what(of: Sharing, unit: int) -> str:
    """What is masked where nothing is shared."""
    if not of.exemplars[unit]:
        return "dark"
    cover = of.cover(unit, "colour")
    return "objects" if cover > 0.7 else "ground" if cover < 0.1 else "any"


def _sentence(of: Sharing, unit: int, found: Sequence[Shared], choose: Choose) -> str:
    mine = {one.factor.kind: one for one in found}
    objects = [one for one in found if one.factor.kind in OF_OBJECTS]
    ground, number, cell, edge = (mine.get(kind) for kind in ("background", "number", "cell", "edge"))
    if objects:
        said = _objects(of, unit, objects, choose)
    elif ground and not edge and of.cover(unit, "colour") < GROUND_ONLY:
        said, ground = _often(ground) + choose(_MATTER[ground.factor.name]), None
    elif number and not edge:
        said, number = _often(number) + choose(_NUMBER[number.factor.name]), None
    else:
        said = choose(_THINGS)
    if edge:
        said = f"{_often(edge)}{choose(words(edge.factor.name))}s of {said}"
    if ground:
        said += f" {_often(ground)}{choose(_GROUND[ground.factor.name])}"
    if cell:
        said += f" {_often(cell)}{choose(_CELL[cell.factor.name])}"
    if number:
        said += f", {_often(number)}{choose(_NUMBER[number.factor.name])} in a picture"
    return said


def _objects(of: Sharing, unit: int, objects: Sequence[Shared], choose: Choose) -> str:
    """Objects by what their factors are: one phrase if the factors meet, else one after the other."""
    rarest = min(one.share for one in objects)
    meet = of.together(unit, [one.factor for one in objects])
    if len(objects) == 1:
        return choose(_ways(of, unit, objects[0], choose))
    if meet >= TOGETHER * rarest:
        return _often_by(min(meet / TOGETHER, rarest)) + _phrase(objects, choose)
    lead, *rest = objects
    others = [f"{_often_by(min(one.share, MANY))}{_alone(one, choose)}" for one in rest]
    return f"{_often(lead)}{_phrase([lead], choose)}, {' and '.join(others)}"


def _ways(of: Sharing, unit: int, one: Shared, choose: Choose) -> list[str]:
    """Ways to say that regions are parts of objects of one factor, and of none other that is shared."""
    often, phrase, kind = _often(one), _phrase([one], choose), one.factor.kind
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


def _often(one: Shared) -> str:
    return _often_by(one.share)


def _often_by(share: float) -> str:
    return "" if share >= MOST else "mostly " if share >= MANY else "often "
