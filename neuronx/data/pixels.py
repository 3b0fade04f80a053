"""From what a picture file holds to RGB of eight bits a channel, upright: one reading for all pictures and masks.

Grey values beyond eight bits are scaled linearly, all pictures of a data set alike: whole numbers by their bit depth
(the fewest of 8, 10, 12, 14, 16, 24 and 32 bits that hold the largest value), floats from 0 to 1 where all lie within,
and other floats and negative numbers from the least finite value, black, to the largest, white. NaN is black. Of the 16
bits of a colour the upper eight count; colours that use none of their upper four are refused. Alpha is left out, as in
torchvision. A picture of more than `WHOLE` pixels is read reduced.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from neuronx.errors import UserError

DEPTHS = (8, 10, 12, 14, 16, 24, 32)

WHOLE = 2**30 // 12
"""Pixels that are read as they are: as many as PIL opens without a warning, 89 million."""
REDUCED = 2**24
"""Pixels that a larger picture is brought to, at most."""

_Flip = Image.Transpose
TURNS = {
    2: _Flip.FLIP_LEFT_RIGHT,
    3: _Flip.ROTATE_180,
    4: _Flip.FLIP_TOP_BOTTOM,
    5: _Flip.TRANSPOSE,
    6: _Flip.ROTATE_270,
    7: _Flip.TRANSVERSE,
    8: _Flip.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation; 1 needs nothing."""
BACK = {6: 8, 8: 6}
"""The orientations whose turns undo each other; any other turn undoes itself."""


@dataclass(frozen=True)
class Scale:
    """The grey values that are black and white, for whole numbers and for floats."""

    whole: tuple[float, float] = (0.0, 65535.0)
    floats: tuple[float, float] = (0.0, 1.0)


def is_deep(picture: Image.Image) -> bool:
    """Whether a picture is grey with more than eight bits."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;")


def extent(picture: Image.Image) -> tuple[float, float] | None:
    """The least and the largest finite grey value of a deep picture; None where there is none."""
    values = np.asarray(picture)
    values = values[np.isfinite(values)] if picture.mode == "F" else values
    return (float(values.min()), float(values.max())) if values.size else None


def scale_of(whole: Iterable[tuple[float, float]], floats: Iterable[tuple[float, float]]) -> Scale:
    """The scale of a data set, from the extents of its deep pictures."""
    scale = Scale()
    if whole := list(whole):
        low, high = min(low for low, _ in whole), max(high for _, high in whole)
        depth = next((depth for depth in DEPTHS if high < 2**depth), 32)
        scale = Scale((0.0, 2.0**depth - 1) if low >= 0 else (low, high))
    if floats := list(floats):
        low, high = min(low for low, _ in floats), max(high for _, high in floats)
        scale = Scale(scale.whole, (0.0, 1.0) if low >= 0 and high <= 1 else (low, high))
    return scale


def size_read(width: int, height: int) -> tuple[int, int]:
    """The width and height at which a picture is read: its own; or a half, a quarter, ... of one beyond `WHOLE`."""
    if width * height <= WHOLE:
        return width, height
    factor = 2
    while (size := (-(-width // factor), -(-height // factor)))[0] * size[1] > REDUCED:
        factor *= 2
    return size


def rgb(picture: Image.Image, scale: Scale | None = None, upright: bool = True) -> Image.Image:
    """A picture in RGB.

    Args:
        picture: Of any kind that PIL reads; of several frames, the first.
        scale: Of the data set; the picture's own by default.
        upright: Turned as its EXIF orientation says; False leaves it as it is stored.

    Raises:
        UserError: For colours as in `check_colours`.
    """
    inverted, wide = _white_is_zero(picture), is_wide(picture)
    picture = turned(picture, upright)
    check_colours(picture, wide)
    if picture.size != (size := size_read(*picture.size)):
        picture = picture.resize(size, Image.Resampling.BOX)
    if is_deep(picture):
        picture = _grey(picture, own_scale(picture) if scale is None else scale, inverted)
    if picture.mode in ("P", "PA"):  # with transparency, PIL warns of the direct way
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def is_wide(picture: Image.Image) -> bool:
    """Whether a picture, not yet decoded, has colours of 16 bits."""
    return ";16" in str(getattr(picture, "tile", None)) and not is_deep(picture)


def check_colours(picture: Image.Image, wide: bool) -> None:
    """Refuses `wide` colours that use the lower 12 of their 16 bits: PIL gives the upper eight, which are nearly black.

    Raises:
        UserError: In a few words, without its name.
    """
    if wide and int(np.asarray(picture.convert("RGB")).max()) < 16:
        raise UserError("has colours that use at most 12 of their 16 bits: save it with 8 bits a colour")


def own_scale(picture: Image.Image) -> Scale:
    """The scale of a deep picture that is alone."""
    known = [] if (found := extent(picture)) is None else [found]
    return scale_of([], known) if picture.mode == "F" else scale_of(known, [])


def _grey(picture: Image.Image, scale: Scale, inverted: bool) -> Image.Image:
    black, white = scale.floats if picture.mode == "F" else scale.whole
    values = np.nan_to_num(np.asarray(picture).astype(np.float32), nan=black, posinf=white, neginf=black)
    shown = (values - black) * (255 / (white - black) if white > black else 0.0)
    shown = (255 - shown if inverted else shown).round().clip(0, 255)
    return Image.fromarray(shown.astype(np.uint8))


def _white_is_zero(picture: Image.Image) -> bool:
    """Whether a deep TIFF counts from white to black; PIL minds it for eight bits only."""
    return is_deep(picture) and dict(getattr(picture, "tag_v2", {})).get(262) == 0


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it makes no sense."""
    try:
        found = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF raises errors of a dozen kinds; viewers show such a picture as it is stored
        return 1
    return found if found in TURNS else 1


def turned(picture: Image.Image, upright: bool = True) -> Image.Image:
    """A picture as its EXIF orientation says, or as it is stored."""
    said = orientation(picture)
    if said == 1:
        return picture
    picture.load()
    done = orientation(picture) == 1  # PIL turns a TIFF while it loads
    if done == upright:
        return picture
    return picture.transpose(TURNS[said] if upright else TURNS[BACK.get(said, said)])
