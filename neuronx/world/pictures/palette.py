"""What the colours look like."""

from neuronx.world.pictures.names import COLOURS

# Body, marks of the texture, and rim of an object, as hexadecimal sRGB.
_PALETTE = {
    "red": ("e0303a", "ffc4bf", "8a1820"),
    "orange": ("f98a1c", "ffe6c4", "a6500a"),
    "yellow": ("fbdc2c", "a87f00", "a87f00"),
    "pink": ("ff80bd", "ffe4f2", "b23a7c"),
    "green": ("2fa84f", "c9f2cf", "145c2c"),
    "cyan": ("20c6d2", "d6fbff", "0b737e"),
    "blue": ("2a5be0", "c3d6ff", "132e7c"),
    "purple": ("8b3fd1", "e6cffc", "491a78"),
    "brown": ("7d4b26", "e6cba6", "422410"),
    "black": ("1e1e24", "9a9aa6", "60606c"),
    "white": ("fcfcfa", "b4c2d6", "7f8892"),
    "grey": ("a3a8ae", "5f656d", "4c5157"),
}


def rgb(code: str) -> tuple[float, float, float]:
    """Turns `rrggbb` into red, green and blue in [0, 1]."""
    red, green, blue = bytes.fromhex(code)
    return red / 255, green / 255, blue / 255


BODY, MARK, RIM = ([rgb(_PALETTE[colour][part]) for colour in COLOURS] for part in range(3))
"""One (red, green, blue) for each of COLOURS."""
