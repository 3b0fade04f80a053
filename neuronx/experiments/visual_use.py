"""Which features of pictures the layers of networks use: the share of each group of features, by depth."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuronx.concepts.formula import spoken
from neuronx.concepts.visual.bank import FEATURES
from neuronx.errors import UserError
from neuronx.experiments.given import Given
from neuronx.report.group_shares import LayerShares, group_shares_picture
from neuronx.report.inventory import as_text, plain_table
from neuronx.report.tiles import png
from neuronx.store.cache import write_atomic
from neuronx.tables.csv import write_csv
from neuronx.types import Cell, Explanation, as_found

GROUPS = (
    "colours",
    "colour contours and spots",
    "global look",
    "frames",
    "lines",
    "relative direction",
    "bright and dark lines",
    "stripes and grids",
    "texture",
    "dots and corners",
    "smoothness",
    "symmetry",
)
"""In the order in which they are drawn, like beside like."""

OTHER = "other concepts"
GROUP_OF = {spoken(word): feature.group for feature in FEATURES for word in (feature.name, feature.little)}
COLUMNS = ("target", "layer", "group", "share", "units", "val correlation")


@dataclass(frozen=True, kw_only=True)
class VisualUse:
    """Explains layers by features and adds up, group by group, what the terms weigh.

    Features are all on a scale from 0 to 1, so weights within a formula can be compared: a unit counts once, shared out
    among its terms by their absolute weights. Units that never change do not count.
    """

    def run(self, given: Given) -> str:
        """Writes `visual_use.csv` and `visual_use.png`, and returns the table.

        Raises:
            UserError: When there is no method, or no unit is explained.
        """
        if not given.methods:
            raise UserError("This experiment needs explanations: choose explain=le_visual.")
        name, method = next(iter(given.methods.items()))
        networks: dict[str, list[LayerShares]] = {}
        rows: list[list[Cell]] = []
        for target_name, target in given.targets.items():
            images = given.images(target)
            found = as_found(method.explain(target, images, given.trainer), name).explanations
            for layer in target.layers:
                own = [one for one in found if one.unit.layer == layer and one.terms]
                shares, fit = group_shares(own), _mean([dict(one.notes).get("val correlation") for one in own])
                remark = "" if fit is None else f"r {fit:.2f}"
                networks.setdefault(target_name, []).append(LayerShares(layer, shares, remark))
                rows += [[target_name, layer, group, shares[group], len(own), fit] for group in shares]
        if not rows:
            raise UserError(f"{name} explains no unit of {', '.join(given.targets)}.")
        groups = [group for group in (*GROUPS, OTHER) if any(row[2] == group for row in rows)]
        given.write(write_csv, "visual_use.csv", COLUMNS, rows)
        given.write(write_atomic, "visual_use.png", png(group_shares_picture(networks, groups)))
        return _text(networks, groups, name)


def group_shares(explanations: Sequence[Explanation]) -> dict[str, float]:
    """Group -> share of the weight of terms, each unit counted once; adds up to 1, the groups used only."""
    total: defaultdict[str, float] = defaultdict(float)
    for one in explanations:
        weight = sum(abs(weight) for _, weight in one.terms)
        for concept, own in one.terms:
            total[GROUP_OF.get(spoken(concept), OTHER)] += abs(own) / weight / len(explanations)
    return {group: total[group] for group in (*GROUPS, OTHER) if group in total}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _text(networks: Mapping[str, Sequence[LayerShares]], groups: Sequence[str], method: str) -> str:
    table = plain_table("group", *(f"{name} {one.layer}" for name, layers in networks.items() for one in layers))
    for group in groups:
        shares = [one.shares.get(group, 0.0) for layers in networks.values() for one in layers]
        table.add_row(group, *(f"{100 * share:.0f} %" for share in shares))
    title = f"Share of each group of features in what {method} says of the units, by their weights; see visual_use.png."
    return f"{title}\n\n{as_text(table)}"
