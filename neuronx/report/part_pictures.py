"""Pictures of split units: the references of each part with its name, and a map of all references by their circuits."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from neuronx.milannotations.write import layer_folder
from neuronx.report.figures import COLOURS
from neuronx.report.tiles import FAINT, INK, PAPER, Strip, png, sheet, tiles
from neuronx.store.cache import write_atomic
from neuronx.types import PartSamples, Unit

COLUMNS = 8
"""References of each part."""
WIDTH = 560
"""Of the map, in pixels."""
THUMB = 44
THUMBS = 40
"""Crops on a map at most."""
SHEET = 5
"""Units on the sheet of a layer."""


def write_part_pictures(samples: Sequence[PartSamples], folder: str | Path, seed: int = 0) -> list[Path]:
    """Writes `pictures/<target>/<layer>/parts_<u>.png` for each unit, and a sheet of a layer's first five.

    The sheet is `pictures/<target>_<layer>_parts.png`. A logger that takes pictures finds them there.
    """
    paths = []
    for (target, layer), group in groupby(
        samples, key=lambda sample: (sample.target.replace("/", "-"), sample.unit.layer)
    ):
        drawn = [(sample.unit.index, picture_of_parts(sample, seed)) for sample in group]
        where = layer_folder(Path(folder) / "pictures" / target, layer)
        paths += [write_atomic(where / f"parts_{unit}.png", png(picture)) for unit, picture in drawn]
        path = Path(folder) / "pictures" / f"{target}_{where.name}_parts.png"
        paths.append(write_atomic(path, png(_under_each_other([picture for _, picture in drawn[:SHEET]]))))
    return paths


def picture_of_parts(sample: PartSamples, seed: int = 0) -> Image.Image:
    """The strongest references of each part under each other, and the map beside them."""
    shown = tiles(sample.crops, sample.masks)
    strips = []
    for part, name in enumerate(sample.names):
        own = (sample.labels == part).nonzero().squeeze(1)
        if len(own):
            title = f"{Unit(sample.unit.layer, sample.unit.index, part)}  {name}".rstrip()
            strips.append(Strip(title, f"{len(own)} references", shown[own[:COLUMNS]]))
    left = sheet(strips, COLUMNS)
    right = draw_map(sample, seed, max(left.height, 360))
    page = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), PAPER)
    page.paste(left, (0, 0))
    page.paste(right, (left.width, 0))
    draw = ImageDraw.Draw(page)
    for part, strip in enumerate(range(len(strips))):  # a bar in the colour of the part
        top = strip * (left.height // len(strips))
        draw.rectangle((left.width - 6, top + 26, left.width - 2, top + left.height // len(strips) - 4), _colour(part))
    return page


def draw_map(sample: PartSamples, seed: int = 0, height: int = 480) -> Image.Image:
    """References as dots in the plane, near each other where their circuits are alike, some with their crops."""
    places, how = plane(sample.vectors, seed)
    page = Image.new("RGB", (WIDTH, height), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    draw.text((8, 18), f"{sample.unit}", INK, font, anchor="ls")
    draw.text(
        (16 + font.getlength(str(sample.unit)), 18), f"circuits of its references, {how}", FAINT, font, anchor="ls"
    )
    margin = THUMB // 2 + 6
    low, high = places.amin(0), places.amax(0)
    area = torch.tensor([WIDTH - 2 * margin, height - 26 - 2 * margin])
    at = (places - low) / (high - low).clamp(min=1e-12) * area + torch.tensor([margin, 26 + margin])
    points = at.round().int().tolist()
    chosen = _without_overlap(at, THUMB)
    small = tiles(sample.crops[chosen], None, THUMB).permute(0, 2, 3, 1).contiguous().numpy()
    for n, picture in zip(chosen, small, strict=True):
        x, y = points[n][0] - THUMB // 2, points[n][1] - THUMB // 2
        draw.rectangle((x - 3, y - 3, x + THUMB + 2, y + THUMB + 2), _colour(int(sample.labels[n])))
        page.paste(Image.fromarray(picture), (x, y))
    bare = set(range(len(points))) - set(chosen)
    for n in sorted(bare):
        x, y = points[n]
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), _colour(int(sample.labels[n])), PAPER)
    return page


def plane(vectors: Tensor, seed: int = 0) -> tuple[Tensor, str]:
    """Vectors (n, D) in two dimensions (n, 2) float32, and by what: UMAP where umap-learn is there, else PCA."""
    try:
        from umap import UMAP
    except ImportError:
        pass
    else:
        if len(vectors) > 6:
            made = UMAP(n_neighbors=6, min_dist=0.3, random_state=seed, n_jobs=1).fit_transform(vectors.numpy())
            return torch.as_tensor(made, dtype=torch.float32), "UMAP"
    x = vectors.double() - vectors.double().mean(0)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    found = torch.zeros(len(x), 2, dtype=torch.float64)
    some = min(2, u.shape[1])
    found[:, :some] = u[:, :some] * s[:some]
    # The sign of a component is arbitrary: its largest value is made positive, so that pictures stay the same.
    signs = found.gather(0, found.abs().argmax(0, keepdim=True)).sign()
    share = float((s[:2] ** 2).sum() / (s**2).sum().clamp(min=1e-300))
    return (found * torch.where(signs == 0, 1.0, signs)).float(), f"PCA ({share:.0%} of their variance)"


def _without_overlap(at: Tensor, distance: float) -> list[int]:
    """Which points (n, 2) get their crops, so that none overlap; the strongest references first."""
    chosen: list[int] = []
    near = (at[:, None] - at[None]).abs().amax(2) < distance + 6
    for n in range(len(at)):
        if len(chosen) < THUMBS and not near[n, chosen].any():
            chosen.append(n)
    return chosen


def _under_each_other(pictures: Sequence[Image.Image]) -> Image.Image:
    page = Image.new(
        "RGB", (max(picture.width for picture in pictures), sum(picture.height + 12 for picture in pictures)), PAPER
    )
    top = 0
    for picture in pictures:
        page.paste(picture, (0, top))
        top += picture.height + 12
    return page


def _colour(part: int) -> str:
    return COLOURS[part % len(COLOURS)]
