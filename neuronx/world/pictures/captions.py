"""Sentences about scenes: true, complete in colours, shapes and background, and varied in the rest."""

from neuronx.world.pictures.names import BACKGROUNDS, COLOURS, SHAPES, SIZES, TEXTURES
from neuronx.world.pictures.scene import Scenes

_WHERE = {
    "sky": ("in the sky", "against the sky"),
    "grass": ("on grass", "on the grass"),
    "sand": ("on sand", "on the sand"),
    "brick": ("on a brick wall", "against a brick wall"),
    "water": ("on water", "on the water"),
    "night": ("at night", "in the night"),
    "wood": ("on wood", "on a wood background"),
    "paper": ("on paper", "on a paper background"),
}
_PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the centre", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)


def captions(scenes: Scenes) -> list[str]:
    """Writes one sentence for each scene, such as "a large striped red circle and a small blue star on grass".

    Colour and shape of every object and the background are always named, a texture unless it is plain, sizes,
    places and the word "plain" in some sentences only. Every caption is a phrase that `presence` finds true.
    """
    names = ("shape", "colour", "texture", "size", "place")
    factors = zip(*(getattr(scenes, name).tolist() for name in names), strict=True)
    rest = zip(scenes.background.tolist(), scenes.voice.tolist(), strict=True)
    return [_sentence(objects, *scene) for objects, scene in zip(factors, rest, strict=True)]


def _sentence(objects: tuple[list[int], ...], background: int, voice: float) -> str:
    # The bits of the voice decide, one question each.
    said = int(voice * 64)
    sizes, places, plain, wording, before = (bool(said >> bit & 1) for bit in range(5))
    parts = []
    for shape, colour, texture, size, place in zip(*objects, strict=True):
        if shape < 0:
            continue
        words = [SIZES[size]] if sizes else []
        words += [TEXTURES[texture]] if texture > 0 or plain else []
        words += [COLOURS[colour], SHAPES[shape]]
        words += [_PLACES[place // 3][place % 3]] if places and not before else []
        parts.append(("an " if words[0][0] in "aeiou" else "a ") + " ".join(words))
    what = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
    where = _WHERE[BACKGROUNDS[background]][wording]
    return f"{where}, {what}" if before else f"{what} {where}"
