"""What features of pictures are made from: lightness, colours, oriented energy, lines, dots; each computed once."""

import math
from functools import cache, cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES = ("fine", "medium", "coarse")
"""Lightness at its full size, at half and at a quarter of it."""

DIRECTIONS = ("horizontal", "rising diagonal", "vertical", "falling diagonal")
"""Of lines."""

COLOURS = (
    "black", "white", "grey", "red", "pink", "beige", "brown", "orange", "yellow", "green", "cyan", "blue", "purple",
)  # fmt: skip

WINDOW, LAG = 48, 22
"""Pixels of a window in which stripes and grids are looked for, and of the longest repetition."""

EPSILON = 1e-4
"""Added before a logarithm: less is not seen."""


class Planes:
    """The planes of some pictures, kept while the features of these pictures are computed.

    Args:
        pictures: (B, 3, S, S) float32 RGB in [0, 1]; S is 224 where numbers are compared with published ones.
    """

    def __init__(self, pictures: Tensor) -> None:
        self.rgb = pictures

    @cached_property
    def light(self) -> tuple[Tensor, ...]:
        """Lightness (B, 1, s, s) at each scale: .299 R + .587 G + .114 B."""
        weights = self.rgb.new_tensor([0.299, 0.587, 0.114])[:, None, None]
        fine = (self.rgb * weights).sum(1, keepdim=True)
        return fine, F.avg_pool2d(fine, 2), F.avg_pool2d(fine, 4)

    @cached_property
    def hsv(self) -> tuple[Tensor, Tensor, Tensor]:
        """Hue in degrees [0, 360), saturation and value in [0, 1]: (B, S, S) each; grey has hue 0."""
        value, least = self.rgb.amax(1), self.rgb.amin(1)
        span = value - least
        red, green, blue = self.rgb.unbind(1)
        of = span.clamp(min=1e-8)
        by_red, by_green = ((green - blue) / of).remainder(6), (blue - red) / of + 2
        hue = torch.where(value == red, by_red, torch.where(value == green, by_green, (red - green) / of + 4))
        return 60 * hue * (span > 0), span / value.clamp(min=1e-8), value

    @cached_property
    def colours(self) -> Tensor:
        """(B, S, S) int64 into COLOURS: one colour for each pixel."""
        hue, saturation, value = self.hsv
        named = {
            "red": (hue < 15) | (hue >= 345),
            "orange": (hue >= 15) & (hue < 45),
            "yellow": (hue >= 45) & (hue < 70),
            "green": (hue >= 70) & (hue < 165),
            "cyan": (hue >= 165) & (hue < 195),
            "blue": (hue >= 195) & (hue < 255),
            "purple": (hue >= 255) & (hue < 300),
            "pink": ((hue >= 300) & (hue < 345)) | (((hue < 15) | (hue >= 345)) & (saturation < 0.5) & (value > 0.6)),
            "brown": (hue >= 15) & (hue < 45) & (value <= 0.65),
            "beige": (hue >= 15) & (hue < 45) & (saturation < 0.4) & (value > 0.55),
            "grey": saturation < 0.15,
            "white": (value > 0.8) & (saturation < 0.15),
            "black": value < 0.2,
        }
        found = torch.zeros_like(hue, dtype=torch.int64)
        for name, mask in named.items():  # later ones win
            found[mask] = COLOURS.index(name)
        return found

    @cached_property
    def shares(self) -> Tensor:
        """(B, 13) share of the pixels of each colour."""
        return F.one_hot(self.colours.flatten(1), len(COLOURS)).float().mean(1)

    @cached_property
    def energy(self) -> tuple[Tensor, ...]:
        """Oriented energy (B, 4, s, s) at each scale: sqrt(even^2 + odd^2) of Gabor filters of each direction."""
        found = []
        for light in self.light:
            answers = filtered(light, gabors(light.device)).unflatten(1, (2, len(DIRECTIONS)))
            found.append(answers.square().sum(1).sqrt())
        return tuple(found)

    @cached_property
    def mean_energy(self) -> tuple[Tensor, ...]:
        """(B, 4) at each scale: energy of each direction, mean over places."""
        return tuple(energy.mean((2, 3)) for energy in self.energy)

    @cached_property
    def lines(self) -> tuple[Tensor, Tensor]:
        """Bright lines on dark and dark lines on bright: (B, 4, S, S) each, relu(+-line - |edge|)^2."""
        line, edge = filtered(self.light[0], line_filters(self.rgb.device)).unflatten(1, (2, len(DIRECTIONS))).unbind(1)
        return F.relu(line - edge.abs()).square(), F.relu(-line - edge.abs()).square()

    @cached_property
    def dots(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Bright and dark dots (B, s, s) of lightness, fine and coarse: sqrt(relu det) of the Hessian, by its trace."""
        found = {}
        for name, place in (("fine", 0), ("coarse", 2)):
            xx, yy, xy = filtered(self.light[place], hessians(self.rgb.device)).unbind(1)
            strength = F.relu(xx * yy - xy.square()).sqrt()
            found[name] = strength * (xx + yy < 0), strength * (xx + yy > 0)
        return found

    @cached_property
    def opponents(self) -> Tensor:
        """(B, 2, S, S): red less green, yellow less blue."""
        red, green, blue = self.rgb.unbind(1)
        return torch.stack([red - green, (red + green) / 2 - blue], 1)

    @cached_property
    def local_mean(self) -> Tensor:
        """(B, S, S) lightness, blurred by sigma 3."""
        return blurred(self.light[0], 3)[:, 0]

    @cached_property
    def local_std(self) -> Tensor:
        """(B, S, S) standard deviation of lightness around each pixel, sigma 3."""
        mean_square = blurred(self.light[0].square(), 3)[:, 0]
        return (mean_square - self.local_mean.square()).clamp(min=0).sqrt()

    @cached_property
    def window_parts(self) -> Tensor:
        """(B, W, 48, 48) lightness of windows of 48 pixels, every 44 pixels."""
        missing = max(0, WINDOW - self.rgb.shape[-1])
        light = F.pad(self.light[0], (0, missing, 0, missing), mode="replicate")
        return light.unfold(2, WINDOW, 44).unfold(3, WINDOW, 44).flatten(1, 3)

    @cached_property
    def repeats(self) -> Tensor:
        """How far windows repeat themselves in each direction: (B, W, 4) in [0, 1].

        Half of how far the autocorrelation along a direction rises again, up to 22 pixels away, after it has fallen.
        A wave falls to -1 and rises to 1; it is constant along its own lines.
        """
        parts, twice = self.window_parts, 2 * WINDOW
        hann = torch.hann_window(WINDOW, periodic=False, device=parts.device)
        weight = hann[:, None] * hann

        def autocorrelation(values: Tensor) -> Tensor:
            return torch.fft.irfft2(torch.fft.rfft2(values, s=(twice, twice)).abs().square(), s=(twice, twice))

        centred = parts - (parts * weight).sum((2, 3), keepdim=True) / weight.sum()
        both, of = autocorrelation(centred * weight), autocorrelation(weight)
        found = []
        for down, across in ((0, 1), (-1, 1), (1, 0), (1, 1)):
            steps = torch.arange(int(LAG / math.hypot(down, across)) + 1, device=parts.device)
            rows, columns = (down * steps) % twice, (across * steps) % twice
            along = both[..., rows, columns] / of[rows, columns]
            along = along / along[..., :1].clamp(min=EPSILON / 10)
            found.append((along - along.cummin(-1).values).amax(-1) / 2)
        return torch.stack(found, 2).clamp(0, 1)

    @cached_property
    def windows(self) -> tuple[Tensor, Tensor]:
        """Stripes: (B, W, 4) of each direction and (B, W) of any, of windows of 48 pixels.

        The highest peak (mean of 3x3 frequencies) of power times squared frequency within 22.5 degrees of the
        direction and 3.5 to 17 cycles a window, over all of it, less where there is little of it.
        """
        side, parts = WINDOW, self.window_parts
        hann = torch.hann_window(side, periodic=False, device=parts.device)
        parts = (parts - parts.mean((2, 3), keepdim=True)) * hann[:, None] * hann
        frequency = torch.fft.fftfreq(side, 1 / side, device=parts.device)
        v, u = frequency[:, None], frequency[None, :]
        radius = (u.square() + v.square()).sqrt()
        power = torch.fft.fft2(parts * 255).abs().square() * (radius / side).square() / side**2
        power = power * ((radius >= 1) & (radius <= 20))
        total = power.sum((2, 3)).clamp(min=EPSILON)
        peak = F.avg_pool2d(F.pad(power, (1, 1, 1, 1), mode="circular"), 3, 1) * 9
        band = (radius >= 3.5) & (radius <= 17)
        # Stripes along a direction change across it; the picture's rows count downwards.
        across = torch.rad2deg(torch.atan2(-v, u)).remainder(180)
        sizes = total / (total + 30)
        found = []
        for place in range(len(DIRECTIONS)):
            turn = (across - (45 * place + 90)).remainder(180)
            near = (turn <= 22.5) | (turn >= 157.5)
            found.append((peak * (band & near)).amax((2, 3)) / total * sizes)
        return torch.stack(found, 2), (peak * band).amax((2, 3)) / total * sizes


def filtered(plane: Tensor, filters: Tensor) -> Tensor:
    """Each filter (F, k, k) over a plane (B, 1, s, s), the border reflected: (B, F, s, s)."""
    reach = filters.shape[-1] // 2
    return F.conv2d(F.pad(plane, (reach,) * 4, mode=_padding(plane, reach)), filters[:, None])


def blurred(planes: Tensor, sigma: float) -> Tensor:
    """Planes (B, C, s, s) under a Gaussian, the border reflected."""
    reach = math.ceil(3 * sigma)
    line = torch.exp(-torch.arange(-reach, reach + 1, device=planes.device).float().square() / (2 * sigma**2))
    line = line / line.sum()
    channels = planes.shape[1]
    padded = F.pad(planes, (reach,) * 4, mode=_padding(planes, reach))
    rows = F.conv2d(padded, line.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
    return F.conv2d(rows, line.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)


def _padding(plane: Tensor, reach: int) -> str:
    return "reflect" if reach < plane.shape[-1] else "replicate"


@cache
def gabors(device: torch.device) -> Tensor:
    """Even and odd filters of each direction (8, 23, 23): wavelength 4.5, sigma 2.25 across the line, 4.5 along."""
    across, along = _turned(11)
    envelope = torch.exp(-(across.square() / 2.25**2 + along.square() / 4.5**2) / 2)
    phase = 2 * math.pi * across / 4.5
    even, odd = envelope * phase.cos(), envelope * phase.sin()
    even = even - envelope * (even.sum((1, 2)) / envelope.sum((1, 2)))[:, None, None]
    return (torch.cat([even, odd]) / envelope.sum((1, 2)).repeat(2)[:, None, None]).to(device)


@cache
def line_filters(device: torch.device) -> Tensor:
    """Second (negated) and first derivatives of a Gaussian across each direction (8, 13, 13), for lines and edges."""
    across, along = _turned(6)
    sigma = 1.125
    envelope = torch.exp(-(across.square() / sigma**2 + along.square() / (1.6 * sigma) ** 2) / 2)
    line = envelope * (1 - across.square() / sigma**2)
    line = line - envelope * (line.sum((1, 2)) / envelope.sum((1, 2)))[:, None, None]
    edge = envelope * across / sigma
    both = torch.cat([line, edge])
    return (both / both.abs().sum((1, 2), keepdim=True)).to(device)


@cache
def hessians(device: torch.device) -> Tensor:
    """Second derivatives xx, yy and xy of a Gaussian of sigma 1.2 (3, 9, 9)."""
    sigma = 1.2
    y, x = torch.meshgrid(torch.arange(-4.0, 5), torch.arange(-4.0, 5), indexing="ij")
    bell = torch.exp(-(x.square() + y.square()) / (2 * sigma**2))
    bell = bell / bell.sum()
    xx, yy = (bell * (z.square() / sigma**2 - 1) for z in (x, y))
    found = torch.stack([xx - xx.mean(), yy - yy.mean(), bell * x * y / sigma**2])
    return found.to(device)


def _turned(reach: int) -> tuple[Tensor, Tensor]:
    """Places of a filter (4, k, k) across and along each direction of DIRECTIONS."""
    y, x = torch.meshgrid(*(torch.arange(-reach, reach + 1.0),) * 2, indexing="ij")
    angles = torch.arange(4) * math.pi / 4  # of the line; rows count downwards
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    return x * sin + y * cos, x * cos - y * sin
