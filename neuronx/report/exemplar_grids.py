"""The exemplars of units, as files in the layout of MILANNOTATIONS, as pictures, and as a page for each layer."""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.milannotations.write import layer_folder, write_all
from neuronx.recording.exemplars import POOLED, find_exemplars
from neuronx.recording.pictures import Gallery, gallery, view
from neuronx.recording.record import record
from neuronx.recording.tally import lots, strongest
from neuronx.report.shown import Shown
from neuronx.report.tiles import TILE, Strip, parts, png, sheet, spread, tiles, write_pngs
from neuronx.store.cache import write_atomic
from neuronx.store.processes import is_first
from neuronx.types import Activations, Explanation, TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.recording.exemplars import Exemplars
    from neuronx.targets.target import Target

Words = Mapping[Unit, Mapping[str, str]]
"""Unit -> method -> explanation in words."""

COLUMNS = 5
SIDE = 84
"""Of each picture, in pixels: four rows are as tall as three rows of exemplars."""
LETTERS = 13

RANKS = ((0, 5), (5, 50), (50, 500), (500, 5000))
"""RangeImages of a unit's ranking that are shown beyond the top, as in Linear Explanations, figure 4."""

CHUNK = 2**24
"""Activations that are sorted at a time."""


@dataclass(frozen=True)
class RangeImages:
    """Images of K units from R ranges of their rankings.

    Attributes:
        ranks: R pairs (first, end), clipped to the number of images; rank 0 is the most active image.
        rows: (K, R, n) int64, images of each range, strongest first; -1 where a range has fewer than n.
        activations: (K, R, n) float32 of these images; NaN where there is none.
        low: (K, R) float32, the smallest activation in the whole range.
        high: (K, R) float32, the largest.
    """

    ranks: tuple[tuple[int, int], ...]
    rows: Tensor
    activations: Tensor
    low: Tensor
    high: Tensor


def show_exemplars(
    found: "Mapping[str, Exemplars]",
    target: "Target",
    probe: Probe,
    trainer: TrainerFactory,
    folder: str | Path,
    explanations: Mapping[str, Sequence[Explanation]] | None = None,
    rows: Tensor | None = None,
    size: int | None = None,
    as_scored: bool = True,
) -> list[Path]:
    """Writes the exemplars of a target's units, draws them, and makes a page for each layer.

    In `folder` there will be `exemplars/<target>/<layer>/` in the layout of MILANNOTATIONS, a contact sheet
    `pictures/<target>_<layer>.png` with ten units spread over the layer, and `pictures/<target>/<layer>/` with
    `index.html`, `unit_<u>.png` and, for layers that the target is asked for, `unit_<u>_ranges.png`: images from ranges
    of the ranking by pooled activation; and `unit_<u>_low.png`, those of the lowest, where an explanation of the unit
    begins with a negative term. All processes of a run call it; the first one draws.

    Args:
        found: Layer -> exemplars of the whole layer; drawn are the units asked for in `target.units`.
        target: The network.
        probe: The images.
        trainer: Makes the trainer that runs the network over the exemplars' images, and over all for the ranges, unless
            they are recorded.
        folder: Of the run.
        explanations: What methods (by name) say of the units.
        rows: The images that are ranked; train and val by default, as for exemplars.
        size: Side of the images in the layout of MILANNOTATIONS; see `write_all`.
        as_scored: Whether pictures and pages show the images on which the pooled activation is largest, which is
            explained and scored, where those of the layout are ranked by the peak, as published.

    Returns:
        The pages and the contact sheets; nothing on other processes than the first.
    """
    folder, name, said = Path(folder), target.name.replace("/", "-"), in_words(explanations or {})
    below = begin_low(explanations or {})
    written = write_all(folder / "exemplars" / name, found, target, probe, trainer, size)
    pooled = record(target, probe, trainer, {layer: target.layers[layer] for layer in found if layer in target.layers})
    rows, paths = probe.split("train", "val") if rows is None else rows.unique(), []
    scored = _as_scored(found, pooled, rows, target, probe, trainer, folder, size) if as_scored else {}
    if not is_first():
        return []
    drawings = {layer: Drawn.read(source, found[layer]) for layer, source in zip(found, written, strict=True)} | scored
    for layer, drawn in drawings.items():
        drawn, exemplars = replace(drawn, layout=found[layer]), drawn.exemplars
        where = layer_folder(folder / "pictures" / name, layer)
        draw_units(drawn, where)
        lows: dict[int, Strip] = {}
        if layer in pooled:
            units = [unit for unit in drawn.units if exemplars.units[unit] in below]
            lows = low_ends(pooled[layer], units, rows, drawn.images.shape[1], target, probe, where)
            write_pngs(
                [where / f"unit_{unit}_low.png" for unit in lows],
                (sheet([low], min(len(low.tiles), COLUMNS)) for low in lows.values()),
            )
            ranges = activation_ranges(pooled[layer].values[rows][:, drawn.units], rows, n=COLUMNS)
            shown = gallery(ranges.rows.clamp(min=0), probe, view(target.transform, SIDE), where)
            draw_ranges(ranges, len(rows), drawn.units, shown, where)
        paths.append(page(drawn, where, name, said, pooled[layer].pool if layer in pooled else None, lows))
        sheet_of_layer = png(contact_sheet(drawn, said, lows=lows))
        paths.append(write_atomic(folder / "pictures" / f"{name}_{where.name}.png", sheet_of_layer))
    return paths


def _as_scored(
    found: "Mapping[str, Exemplars]",
    pooled: Mapping[str, Activations],
    rows: Tensor,
    target: "Target",
    probe: Probe,
    trainer: TrainerFactory,
    folder: Path,
    size: int | None,
) -> "dict[str, Drawn]":
    """Layers whose exemplars are ranked by the peak, by the pooled activation of `rows` (N,); on the first process."""
    ranked = {}
    for layer, one in found.items():
        if one.by == "peak" and one.grid is not None and layer in pooled:
            own = pooled[layer].values[rows].T
            best = strongest(own, own, rows.expand_as(own), one.rows.shape[1])
            values = own.gather(1, best)
            ties = (own == values[:, :1]).sum(1)
            ranked[layer] = replace(one, rows=rows[best], values=values, ties=ties, by="pool")
    with tempfile.TemporaryDirectory(dir=folder if is_first() else None) as place:
        written = write_all(place, ranked, target, probe, trainer, size) if ranked else []
        if not is_first():
            return {}
        # What is mapped is there until its last reader is done.
        return {layer: Drawn.read(source, ranked[layer]) for layer, source in zip(ranked, written, strict=True)}


def strongest_images(
    unit: Unit, target: "Target", probe: Probe, trainer: TrainerFactory, low: bool = False, **options: Any
) -> Shown[Any]:
    """The images where a unit is strongest, as (row, name, what ranks them), with their picture; see `picture_of`.

    Args:
        unit: The unit.
        target: The network.
        probe: The images.
        trainer: Makes trainers.
        low: Whether the picture shows the lowest too.
        options: Of `find_exemplars`.
    """
    found = find_exemplars(target, probe, trainer, [unit.layer], **options)[unit.layer]
    numbers = zip(found.rows[unit.index].tolist(), found.values[unit.index].tolist(), strict=True)
    alone = target.select(layers=[unit.layer], units=[unit.index])
    return Shown(
        [(row, probe.image_name(row), value) for row, value in numbers],
        lambda rows: (["image", "name", found.ranking], rows),
        lambda: picture_of(found, alone, probe, trainer, low),
    )


def picture_of(
    exemplars: "Exemplars", target: "Target", probe: Probe, trainer: TrainerFactory, low: bool = False
) -> Image.Image:
    """The exemplars of the first unit that the target is asked for, the image dimmed where the unit does not fire.

    With `low`, the train and val images where it is lowest stand below.
    """
    with tempfile.TemporaryDirectory() as folder:
        layer = exemplars.layer
        (written,) = write_all(folder, {layer: exemplars}, target, probe, trainer)
        drawn = Drawn.read(written, exemplars)
        strips = [drawn.strip(drawn.units[0], drawn.tiles([0])[0])]
        if low:
            pooled, rows = record(target, probe, trainer, {layer: exemplars.pool})[layer], probe.split("train", "val")
            many = drawn.images.shape[1]
            strips += low_ends(pooled, drawn.units[:1], rows, many, target, probe, Path(folder)).values()
        return sheet(strips, COLUMNS)


def in_words(explained: Mapping[str, Sequence[Explanation]]) -> Words:
    """What methods (by name) say of each unit and how many images show it, method by method in their order."""
    words: dict[Unit, dict[str, str]] = {}
    for method, explanations in explained.items():
        for explanation in explanations:
            support = f" [train/test images: {explanation.support_text}]" if explanation.support else ""
            words.setdefault(explanation.unit, {})[method] = f"{explanation}{support}"
    return words


def begin_low(explained: Mapping[str, Sequence[Explanation]]) -> set[Unit]:
    """The units of which some method says first of all what keeps them low: a term of negative weight."""
    said = (explanation for explanations in explained.values() for explanation in explanations)
    return {explanation.unit for explanation in said if explanation.terms and explanation.terms[0][1] < 0}


def low_ends(
    pooled: Activations, units: Sequence[int], rows: Tensor, k: int, target: "Target", probe: Probe, folder: Path
) -> dict[int, Strip]:
    """The k of some images, `rows`, on which each unit's pooled activation is smallest, whole, the lowest first."""
    if not units:
        return {}
    values = -pooled.values[rows][:, list(units)].T.contiguous()
    lowest = strongest(values, values, rows.expand_as(values), min(k, len(rows)))
    shown = gallery(rows[lowest], probe, view(target.transform, TILE), folder)
    strips = {}
    for unit, places, own in zip(units, lowest, values, strict=True):
        low, high = float(-own[places[0]]), float(-own[places[-1]])
        span = f"lowest {POOLED[pooled.pool]}s {low:.4g} to {high:.4g}, of the {len(rows):,} images; shown whole"
        strips[unit] = Strip(str(pooled.units[unit]), span, shown.of(rows[places]))
    return strips


@dataclass(frozen=True)
class Drawn:
    """Exemplars of U units of a layer, as they were written.

    Attributes:
        exemplars: Of the whole layer.
        units: Indices of the units.
        images: (U, k, 3, S, S) uint8, mapped.
        masks: (U, k, 1, S, S) uint8, mapped; None where the whole image counts.
        layout: Those in the layout of MILANNOTATIONS, where they may be ranked otherwise.
    """

    exemplars: "Exemplars"
    units: Sequence[int]
    images: np.ndarray
    masks: np.ndarray | None
    layout: "Exemplars | None" = None

    @classmethod
    def read(cls, folder: Path, exemplars: "Exemplars") -> "Drawn":
        """Opens a layer's folder."""
        numbers = folder / "units.npy"
        units = np.load(numbers).tolist() if numbers.exists() else list(range(len(exemplars.units)))
        masks = None if exemplars.grid is None else np.load(folder / "masks.npy", mmap_mode="r")
        return cls(exemplars, units, np.load(folder / "images.npy", mmap_mode="r"), masks)

    def tiles(self, places: Sequence[int], side: int = TILE) -> Tensor:
        """The exemplars of some of the units, as (n, k, 3, side, side) uint8."""
        masks = None if self.masks is None else torch.from_numpy(self.masks[places])
        return tiles(torch.from_numpy(self.images[places]), masks, side)

    def strip(self, unit: int, pictures: Tensor, remark: str = "") -> Strip:
        """The exemplars of a unit with its name and what ranks them above them."""
        span = ", ".join(filter(None, (self.span(unit), self.saturated(unit))))
        return Strip(str(self.exemplars.units[unit]), f"{span}   {remark}".rstrip(), pictures)

    def span(self, unit: int) -> str:
        """From what to what the exemplars of a unit reach."""
        values = self.exemplars.values[unit].tolist()
        return f"{self.exemplars.ranking}s {values[0]:.4g} to {values[-1]:.4g}"

    def saturated(self, unit: int) -> str:
        """How many images share the largest value, where these are as many as the exemplars or more; else nothing."""
        for ranked in filter(None, (self.exemplars, self.layout)):
            if bool(ranked.saturated[unit]):
                return f"saturated: {int(ranked.ties[unit]):,} of {ranked.images:,} images have this {ranked.ranking}"
        return ""


def contact_sheet(
    drawn: Drawn,
    explanations: Words,
    units: int = 10,
    exemplars: int | None = None,
    side: int = TILE,
    lows: Mapping[int, Strip] | None = None,
) -> Image.Image:
    """Some units spread over the layer, one a row, with what is said of them, the shortest first.

    Args:
        drawn: The layer.
        explanations: Of its units.
        units: How many, at most.
        exemplars: How many of each; all by default.
        side: Of each picture, in pixels.
        lows: The low ends of units, which stand below the high ones.
    """
    places = spread(len(drawn.units), units)
    strips = []
    for place, pictures in zip(places, drawn.tiles(places, side), strict=True):
        unit = drawn.units[place]
        said = explanations.get(drawn.exemplars.units[unit], {})
        remark = "   ".join(sorted((f"{method}: {words}" for method, words in said.items()), key=len))
        strips.append(drawn.strip(unit, pictures[:exemplars], remark))
        if low := (lows or {}).get(unit):
            strips.append(Strip(low.title, low.remark, tiles(low.tiles[:exemplars], None, side)))
    return sheet(strips, len(strips[0].tiles), letters=side // 7)


def draw_units(drawn: Drawn, folder: Path) -> list[Path]:
    """Draws each unit on its own, as `unit_<u>.png`."""
    paths, k = [], drawn.images.shape[1]
    for some in parts(len(drawn.units), k):
        units = [drawn.units[place] for place in some]
        grids = (
            sheet([drawn.strip(unit, pictures)], min(k, COLUMNS))
            for unit, pictures in zip(units, drawn.tiles(some), strict=True)
        )
        paths += write_pngs([folder / f"unit_{unit}.png" for unit in units], grids)
    return paths


def draw_ranges(ranges: RangeImages, images: int, units: Sequence[int], pictures: Gallery, folder: Path) -> list[Path]:
    """Draws a grid for each unit, a row a range, titled with the share of the images and the activations in it.

    Args:
        ranges: Of these units.
        images: How many images were ranked.
        units: Their indices, for the names of the files.
        pictures: Holds all images of the ranges.
        folder: Gets `unit_<u>_ranges.png`.
    """
    titles = [f"Top {100 * first / images:.3g}%-{100 * end / images:.3g}%" for first, end in ranges.ranks]
    paths = []
    for some in parts(len(units), ranges.rows[0].numel()):
        shown = pictures.of(ranges.rows[some].clamp(min=0))
        shown[ranges.rows[some] < 0] = 255  # a range with fewer images
        files = [folder / f"unit_{units[place]}_ranges.png" for place in some]
        paths += write_pngs(files, (_range_grid(titles, ranges, *one) for one in zip(some, shown, strict=True)))
    return paths


def _range_grid(titles: Sequence[str], ranges: RangeImages, place: int, shown: Tensor) -> Image.Image:
    limits = zip(ranges.low[place].tolist(), ranges.high[place].tolist(), strict=True)
    remarks = [f"activations {low:.4g} to {high:.4g}" for low, high in limits]
    return sheet([Strip(*row) for row in zip(titles, remarks, shown, strict=True)], shown.shape[1], LETTERS)


def page(
    drawn: Drawn, folder: Path, name: str, explanations: Words, pool: str | None = None, lows: Collection[int] = ()
) -> Path:
    """Writes the page of a layer of the network called `name`; `pool` ranked the images where ranges are drawn.

    It opens without a network connection, can be searched, and sorted by unit or by strength. `lows` are the units of
    which the low end is drawn.
    """
    from jinja2 import Environment

    exemplars = drawn.exemplars
    endings = ("",) if pool is None else ("", "_ranges")
    cards = [
        {
            "name": str(exemplars.units[unit]),
            "strength": float(exemplars.values[unit, 0]),
            "span": drawn.span(unit),
            "saturated": drawn.saturated(unit),
            "threshold": float(exemplars.thresholds[unit]),
            "explanations": explanations.get(exemplars.units[unit], {}),
            "pictures": [f"unit_{unit}{ending}.png" for ending in (*endings, *("_low",) * (unit in lows))],
        }
        for unit in drawn.units
    ]
    where = (
        f"bright where a unit is above its {exemplars.quantile:g} quantile over all positions of all images"
        if exemplars.grid is not None
        else "shown whole, since the class token is at no place of them"
        if exemplars.pool == "first"
        else "shown whole, since the layer has no positions"
    )
    ranked = exemplars.ranking
    most = f"of each the {exemplars.rows.shape[1]} images of {exemplars.images:,} with the strongest {ranked}, {where}"
    if drawn.layout is not None and drawn.layout.by != exemplars.by:
        most += (
            f"; the {ranked} is what is explained and scored (exemplars/ has those of the largest peak, as published)"
        )
    elif ranked != (scored := POOLED[exemplars.pool]) and exemplars.grid is not None:
        most += f" (as published; what is explained and scored is the {scored}, by which exemplars.by=pool ranks)"
    beside = "" if pool is None else f" Beside them images from ranges of the ranking by activation (pool={pool})."
    beside += " Where an explanation begins with a negative term, the lowest images are shown too." * bool(lows)
    remark = f"{len(cards)} units; {most}.{beside}"
    template = Environment(autoescape=True, trim_blocks=True).from_string(PAGE)
    html = template.render(title=f"{name} · {exemplars.layer or 'output'}", remark=remark, cards=cards)
    return write_atomic(folder / "index.html", html.encode())


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
 body { font: 15px/1.45 system-ui, sans-serif; color: #20222a; background: #f3f4f7; margin: 0 auto; padding: 1.5em;
        max-width: 1480px }
 h1 { font-size: 1.45em; margin: 0 } p { margin: .3em 0 1em; color: #5b606c }
 form { position: sticky; top: 0; padding: .6em 0; background: #f3f4f7 }
 input, select { font: inherit; padding: .25em .5em; border: 1px solid #c4c8d2; border-radius: 4px; background: #fff }
 input { width: 24em; max-width: 60% }
 article { background: #fff; border-radius: 6px; margin: 0 0 1em; padding: .9em 1.1em }
 h2 { font-size: 1.1em; margin: 0 } h2 small { color: #787c86; font-weight: normal; margin-left: .6em }
 h2 small.saturated { color: #a8471f }
 dl { display: grid; grid-template-columns: max-content 1fr; gap: .1em .9em; margin: .4em 0 } dd { margin: 0 }
 dt { color: #787c86 } img { max-width: 100%; vertical-align: top; margin: .4em .8em 0 0 }
</style>
<h1>{{ title }}</h1>
<p>{{ remark }}</p>
<form><input type="search" placeholder="find units or words" aria-label="find units or words">
<select aria-label="order"><option value="unit">by unit</option>
<option value="strength">strongest first</option></select>
</form>
<main>
{% for card in cards %}
<article data-unit="{{ loop.index0 }}" data-strength="{{ card.strength }}">
<h2>{{ card.name }}<small>{{ card.span }}, on above {{ "%.4g"|format(card.threshold) }}</small>
<small class="saturated">{{ card.saturated }}</small></h2>
{% if card.explanations %}
<dl>{% for method, words in card.explanations.items() %}<dt>{{ method }}</dt><dd>{{ words }}</dd>{% endfor %}</dl>
{% endif %}
{% for picture in card.pictures %}
<img loading="lazy" src="{{ picture }}" alt="{{ card.name }}, {{ picture }}">
{% endfor %}
</article>
{% endfor %}
</main>
<script>
const cards = [...document.querySelectorAll("article")], main = document.querySelector("main");
document.querySelector("input").oninput = e => cards.forEach(card => {
  card.hidden = !card.textContent.toLowerCase().includes(e.target.value.toLowerCase()) });
document.querySelector("select").onchange = e => main.append(...cards.sort((a, b) => e.target.value == "strength"
  ? b.dataset.strength - a.dataset.strength : a.dataset.unit - b.dataset.unit));
document.querySelector("form").onsubmit = () => false;
</script>
"""


def activation_ranges(
    values: Tensor,
    rows: Tensor | None = None,
    *,
    ranks: Sequence[tuple[int, int]] = RANKS,
    n: int = 4,
    seed: int = 0,
) -> RangeImages:
    """Draws n images from each range of every unit's ranking, none twice.

    The same seed draws the same ranks for every unit, so that a unit's row does not depend on which others are shown.

    Args:
        values: (N, K) float32, pooled activations.
        rows: (N,) int64, which images they belong to; 0 to N-1 by default. Equally active images rank by lot.
        ranks: (first, end) pairs, 0 <= first < end; they are clipped to N, and left out where nothing remains.
        n: Images of each range.
        seed: Of the draw.

    Raises:
        UserError: A range that is empty or begins below 0, n below 1, or no range among the first N.
    """
    images = len(values)
    rows = torch.arange(images) if rows is None else rows
    if n < 1:
        raise UserError(f"n={n} images of each range: draw at least one.")
    if wrong := [pair for pair in ranks if not 0 <= pair[0] < pair[1]]:
        raise UserError(f"The range of ranks {wrong[0][0]}-{wrong[0][1]} holds nothing; write first and end, as 5-50.")
    clipped = tuple((first, min(end, images)) for first, end in ranks if first < images)
    if not clipped:
        raise UserError(f"There are {images} images only, and the first range begins at rank {min(ranks)[0]}.")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.full((len(clipped), n), -1)
    for number, (first, end) in enumerate(clipped):
        some = torch.randperm(end - first, generator=generator)[:n].sort().values + first
        drawn[number, : len(some)] = some
    ends = torch.tensor(clipped)
    drawn_lots = lots(rows, torch.tensor(0)).argsort()
    rows, values = rows[drawn_lots], values[drawn_lots]
    parts = []
    for few in values.split(max(1, CHUNK // images), dim=1):
        ordered, order = few.float().sort(dim=0, descending=True, stable=True)
        parts.append(
            (rows[order[drawn.clamp(min=0)]], ordered[drawn.clamp(min=0)], ordered[ends - torch.tensor([0, 1])])
        )
    found, activations, limits = (torch.cat(some, -1).movedim(-1, 0) for some in zip(*parts, strict=True))
    missing = drawn < 0
    return RangeImages(
        ranks=clipped,
        rows=found.masked_fill(missing, -1),
        activations=activations.masked_fill(missing, torch.nan),
        low=limits[..., 1],
        high=limits[..., 0],
    )
