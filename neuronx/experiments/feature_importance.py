"""Which units a network needs, by what their captions are like: accuracy while more and more of them are zero.

Section 4 of MILAN (Hernandez et al., 2022): if accuracy falls faster than with units in random order, units with that
property of their captions matter more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.markup import escape
from rich.table import Column
from rich.text import Text
from torch import Tensor
from torch.nn import functional as F

from neuronx.errors import UserError, unknown
from neuronx.experiments.figures import INK, laid_out, line, random_orders
from neuronx.experiments.given import Given
from neuronx.experiments.zeroing import intervals, outputs_of, right_without
from neuronx.methods.milan.networks import tokens
from neuronx.metrics.naming import matching
from neuronx.options import Count, Seed, Share
from neuronx.report.figures import COLOURS
from neuronx.report.inventory import as_text, plain_table
from neuronx.tables.csv import write_csv
from neuronx.types import Cell, TrainerFactory, Unit

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


TAGS = {"nouns": "NOUN", "verbs": "VERB", "adpositions": "ADP", "adjectives": "ADJ"}
"""Parts of speech that can be counted, and what spaCy calls them."""
TAGGER = "en_core_web_sm"

Embed = Callable[[Sequence[str]], Tensor]
"""From phrases to embeddings (., D), such as `Clip.embed_texts`."""

SHARES = (0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18)
"""Of the units that are zero, as published."""
WIDTH = 20
"""Of a property's name at the head of a table."""


@dataclass(frozen=True)
class Order:
    """Accuracy while the units with the most of a property are zero.

    Attributes:
        name: The property.
        accuracy: (X,) float64 at each share.
        difference: (X, 3) float64, accuracy minus that of random orders: mean and 95 % bootstrap interval over images.
    """

    name: str
    accuracy: Tensor
    difference: Tensor


@dataclass(frozen=True)
class FeatureImportance:
    """How accuracy falls, order by order.

    Attributes:
        target: Name of the network.
        images: `<data>:<n>`.
        units: How many have captions.
        intact: Accuracy of the network as it is.
        shares: (X,) shares of the units that are zero.
        random: (T, X) float64, accuracy with the units in T random orders.
        orders: One for each property.
    """

    target: str
    images: str
    units: int
    intact: float
    shares: tuple[float, ...]
    random: Tensor
    orders: tuple[Order, ...]


def property_of(captions: Sequence[str], name: str, embed: Embed | None = None) -> Tensor:
    """A property of U captions: (U,) float64.

    Args:
        captions: Sentences.
        name: `length` in words; `names:red|blue`, 1 for a caption that names any of the phrases and else 0;
            `like:TEXT`, the cosine with a text in a text space; `nouns`, `verbs`, `adpositions` or `adjectives`, how
            many there are.
        embed: The text space of `like`.

    Raises:
        UserError: An unknown property; one that needs a text space or spaCy's tagger where there is none.
    """
    kind, _, rest = name.partition(":")
    if kind == "length":
        return torch.tensor([len(tokens(text)) for text in captions], dtype=torch.float64)
    if kind == "names":
        return matching(captions, rest.split("|") if rest else []).double()
    if kind == "like":
        if embed is None or not rest:
            raise UserError(
                f"`{name}` compares captions with a text in the space of a CLIP: write like:TEXT and clip=."
            )
        vectors = F.normalize(embed([rest, *captions]).double(), dim=1)
        return vectors[1:] @ vectors[0]
    if kind in TAGS:
        return torch.tensor([sum(tag == TAGS[kind] for tag in one) for one in _tagged(captions)], dtype=torch.float64)
    raise unknown("property of captions", name, ["length", "names:WORD|WORD", "like:TEXT", *TAGS])


def _tagged(captions: Sequence[str]) -> list[list[str]]:
    """The part of speech of every word."""
    import spacy

    if not spacy.util.is_package(TAGGER):
        raise UserError(
            f"Parts of speech need spaCy's {TAGGER} (python -m spacy download {TAGGER}); without it use `length`, or "
            "count words of your own with names:WORD|WORD."
        )
    tagger = spacy.load(TAGGER, exclude=["parser", "ner", "lemmatizer"])
    return [[word.pos_ for word in text] for text in tagger.pipe(captions)]


def feature_importance(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    captions: Mapping[Unit, str],
    properties: Sequence[str] = ("length",),
    *,
    shares: Sequence[Share] = SHARES,
    trials: Count = 5,
    increasing: bool = False,
    embed: Embed | None = None,
    rows: Tensor | None = None,
    seed: Seed = 0,
) -> FeatureImportance:
    """Zeroes units in the order of properties of their captions, and in random orders.

    Args:
        target: The network, a classifier.
        probe: The images, with its labels.
        trainer: Makes trainers.
        captions: Of units of any of its layers.
        properties: See `property_of`; units with most of it are zeroed first, equal ones in an order of their own.
        shares: Of the units that are zero at a time, in (0, 1].
        trials: Number of random orders.
        increasing: Whether units with least of a property go first instead.
        embed: A text space, for `like:TEXT`.
        rows: The images; those of the test split by default.
        seed: Of the random orders.

    Raises:
        UserError: As `right_without` and `property_of`; no captions, no trials or shares out of range,
            a property that all captions have alike.
    """
    units, texts = list(captions), list(captions.values())
    if not units or trials < 1 or not shares or not all(0 < share <= 1 for share in shares):
        raise UserError(
            f"Feature importance needs captions (found {len(units)}), random orders (asked for {trials}) and shares of "
            f"units between 0 and 1 (given {', '.join(f'{share:g}' for share in shares) or 'none'})."
        )
    rows = probe.splits["test"] if rows is None else rows
    generator = torch.Generator().manual_seed(seed)
    chance = torch.stack([torch.randperm(len(units), generator=generator) for _ in range(trials)])
    orders = []
    for name in properties:
        values = property_of(texts, name, embed) * (1 if increasing else -1)
        if float(values.max()) == float(values.min()):
            raise UserError(
                f"The captions of all {len(units)} units of {target.name} have as much of `{name}` "
                f"({abs(float(values[0])):g}), so it puts the units in no order: choose another property."
            )
        shuffled = torch.randperm(len(units), generator=generator)
        orders.append(shuffled[values[shuffled].argsort(stable=True)])
    counts = [max(1, round(share * len(units))) for share in shares]
    sets: list[list[Unit]] = [[]]
    sets += [[units[i] for i in order[:count].tolist()] for order in (*chance, *orders) for count in counts]
    right = right_without(target, probe, trainer, sets, rows).double()
    curves = right[1:].unflatten(0, (-1, len(counts)))  # (T + O, X, N)
    expected = curves[:trials].mean(0)
    return FeatureImportance(
        target=target.name,
        images=f"{probe.name}:{len(rows)}",
        units=len(units),
        intact=float(right[0].mean()),
        shares=tuple(shares),
        random=curves[:trials].mean(2),
        orders=tuple(
            Order(name, curve.mean(1), intervals(curve - expected, seed))
            for name, curve in zip(properties, curves[trials:], strict=True)
        ),
    )


def feature_importance_table(found: FeatureImportance) -> str:
    """Accuracy in percent, one row a share of units; `*` where it is outside those of all random orders."""
    title = (
        f"{found.target}: accuracy (%) on {found.images} while a share of its {found.units} units is at 0; with none "
        f"{100 * found.intact:.1f}"
    )
    names = [shortened(one.name) for one in found.orders]
    right = ["at 0", "units", f"{len(found.random)} random orders", "lowest to highest"]
    right += [escape(text) for name in names for text in (name, "− random", "95 %")]
    table = plain_table(*(Column(text, justify="right") for text in right))
    mean, (low, high) = found.random.mean(0), found.random.aminmax(dim=0)
    for x, share in enumerate(found.shares):
        cells = [f"{100 * share:g} %", str(max(1, round(share * found.units))), f"{100 * mean[x]:.1f}"]
        cells.append(f"{100 * low[x]:.1f} to {100 * high[x]:.1f}")
        for order in found.orders:
            outside = not low[x] <= order.accuracy[x] <= high[x]
            difference, *ends = (100 * order.difference[x]).tolist()
            cells += [f"{100 * order.accuracy[x]:.1f}{'*' if outside else ' '}", f"{difference:+.1f}"]
            cells.append(escape(f"[{ends[0]:+.1f}, {ends[1]:+.1f}]"))
        table.add_row(*cells)
    notes = ["* outside all random orders; intervals are over pictures"]
    notes += [f"{short} is {one.name}" for short, one in zip(names, found.orders, strict=True) if short != one.name]
    return as_text(Text(title), table, Text("; ".join(notes), style="dim"))


def shortened(name: str) -> str:
    """A property's name, cut where it is too long for a table's head."""
    return name if len(name) <= WIDTH else f"{name[: WIDTH - 1]}…"


def write_feature_importance(path: str | Path, found: FeatureImportance) -> Path:
    """Writes one line for each order and share: accuracy, and its difference from random orders with the interval."""
    columns = ["target", "images", "order", "share", "units", "accuracy", "difference", "low", "high"]
    lines: list[list[Cell]] = []
    for x, share in enumerate(found.shares):
        same: list[Cell] = [share, max(1, round(share * found.units))]
        chance = [[f"random {t}", *same, value] for t, value in enumerate(found.random[:, x].tolist(), start=1)]
        lines += [[found.target, found.images, *line, None, None, None] for line in chance]
        for one in found.orders:
            values = [float(one.accuracy[x]), *one.difference[x].tolist()]
            lines.append([found.target, found.images, one.name, *same, *values])
    return write_csv(path, columns, lines)


def importance_figure(found: FeatureImportance) -> "Figure":
    """Accuracy over the share of units at 0, a line for each property, with the lowest to highest random order."""
    from plotly.graph_objects import Figure

    figure, x = Figure(), [100 * share for share in found.shares]
    random_orders(figure, x, found.random)
    for place, order in enumerate(found.orders):
        below, above = order.difference[:, 0] - order.difference[:, 1], order.difference[:, 2] - order.difference[:, 0]
        bars = {"array": (100 * above).tolist(), "arrayminus": (100 * below).tolist(), "symmetric": False}
        line(figure, x, order.accuracy, shortened(order.name), COLOURS[place % len(COLOURS)], error_y=bars)
    figure.add_hline(100 * found.intact, line={"color": INK, "dash": "dot", "width": 1}, annotation_text="intact")
    text = f"{found.target} on {found.images}, {found.units} units; bars: 95 % of the difference from random"
    return laid_out(figure, "Which units are needed, by their captions", text, "units at 0 (%)", "accuracy (%)")


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Accuracy while units are zeroed in the order of a property of their captions.

    Attributes:
        properties: See `neuronx.experiments.properties.property_of`.
        shares: Of the units.
        trials: Random orders.
        increasing: Whether units with least of a property go first.
        seed: Of the random orders.
        clip: The text space of `like:TEXT`.
    """

    properties: Sequence[str] = ("length",)
    shares: Sequence[Share] = SHARES
    trials: Count = 5
    increasing: bool = False
    seed: Seed = 0
    clip: Any = None

    def run(self, given: Given) -> str:
        """Zeroes units of each network; writes `importance_<target>.csv` and draws it."""
        for target in given.targets.values():
            outputs_of(target, given.images(target))  # what is wrong is said before any caption is written
        text, embed = "", None if self.clip is None else self.clip.embed_texts
        for name in self.properties:
            property_of(["a caption"], name, embed)
        for name, target in given.targets.items():
            found = feature_importance(
                target,
                given.images(target),
                given.trainer,
                given.captions(target),
                list(self.properties),
                shares=list(self.shares),
                trials=self.trials,
                increasing=self.increasing,
                embed=embed,
                seed=self.seed,
            )
            given.write(write_feature_importance, f"importance_{name}.csv", found)
            given.draw(importance_figure(found), f"importance_{name}.html")
            text += feature_importance_table(found)
        return text
