"""`sim=ablation`: a unit is replaced by its simulation and all else kept; how much does the network's loss change?"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.recording.record import record, without_parts
from neuronx.scoring.ablation.curves import FEWEST
from neuronx.scoring.ablation.damage import Damage, Effect, Seen
from neuronx.scoring.ablation.head import class_labels, few_images, find_linear_head, fit_temperature
from neuronx.scoring.ablation.measured import LinearEffect, Measuring
from neuronx.scoring.panels import Beside, asked_for, rows_of_table
from neuronx.types import Explanation, Judge, Score, Scores, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

log = logging.getLogger(__name__)

MODES = ("optim", "norm")
HOW = ("shift", "scale")
BYTES = 192 * 2**20
"""Of the curves of the units that are scored at a time."""


@dataclass(frozen=True)
class Ablation(Beside):
    """Scores explanations by how much damage is undone when a unit is replaced by its simulation, not by its mean.

    With L the cross entropy of an image, L0 of the intact network, z^ the simulation and m the unit's mean on val:

        score = 1 - sum |L(unit at z^) - L0| / sum |L(unit at m) - L0|          over the test images

    1 is perfect, 0 as bad as the mean, and there is no lower end. `ablation_norm` gives the prediction the unit's mean
    and spread on val, times their correlation there; `ablation_optim` fits a scale and an offset on val. A unit that
    has no effect on the loss has the status `no_effect` and no score. A constant prediction scores 0 in `norm`, and in
    `optim` what a fitted constant reaches. Other statuses, floors and the ceiling are those of `Correlation`.

    Where the layer feeds the class head linearly, effects are exact; elsewhere the rest of the network is run with the
    unit at a few amounts, and its effects are interpolated: the table then says in the column `pool` how an amount gets
    into a map or among tokens, as in `avg, shift`. Standard errors are those of a ratio of sums over test images.

    Attributes:
        modes: Which of `optim` and `norm`.
        temperature: Logits are divided by it; fitted on val by default (to 1 where labels are predicted). 1.1 was
            published for ResNet-50.
        labels: `true`, or `predicted` for the network's own largest logit, for pictures without labels.
        steps: Of Adam, in `optim`.
        lr: Of Adam.
        combine: `shift` adds the same everywhere in a map or to all tokens that the pooling looks at; `scale`
            multiplies them.
        nodes: Amounts that each unit is measured at where the network is run; by default as many as a few units need.
        most_nodes: At most so many, by default.
        most_images: Of val and of test, evenly spread, where the network is run; None for all. The table says how
            many test images there were.
    """

    modes: Sequence[str] = MODES
    temperature: float | None = None
    labels: str = "true"
    steps: int = 100
    lr: float = 1e-2
    combine: str = "shift"
    nodes: int | None = None
    most_nodes: int = 20
    most_images: int | None = 250

    def __post_init__(self) -> None:
        for mode in self.modes:
            if mode not in MODES:
                raise unknown("mode of ablation", mode, MODES)
        if not self.modes:
            raise UserError(f"sim.ablation.modes is empty; name {' or '.join(MODES)}.")
        if self.combine not in HOW:
            raise unknown("way to combine", self.combine, HOW)
        if self.temperature is not None and not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise UserError(f"sim.ablation.temperature={self.temperature}: it must be above 0, or null to be fitted.")
        for name in ("nodes", "most_images"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise UserError(f"sim.ablation.{name}={value}: at least 2 are needed.")

    def score(
        self,
        explained: Mapping[str, Sequence[Explanation]],
        target: "Target",
        probe: "Probe",
        judge: Judge,
        trainer: TrainerFactory,
        words: Sequence[str] = (),
    ) -> Scores:
        """Scores the explanations of several methods, of any layers of the target.

        Args:
            explained: Method -> its explanations.
            target: The network; its outputs are logits.
            probe: The images, labelled with the network's classes; test images give the scores, val fits.
            judge: Who says which concepts an image shows.
            trainer: Makes trainers.
            words: What the random floor and the ceiling draw from where the judge has no vocabulary; the explanations'
                own concepts by default.

        Raises:
            UserError: Explanations of an unknown layer or unit, two for one unit, or broken formulas; activations that
                are not finite; a network without class head; labels that are missing or of other classes.
        """
        # What a part of a unit would do to the network, were it another, nobody knows.
        explained = {method: [one for one in ones if one.unit.part is None] for method, ones in explained.items()}
        target = without_parts(target)
        layers = asked_for(explained, target)
        images = few_images(target, probe)
        heads = {layer: find_linear_head(target, layer, how, images) for layer, how in layers.items()}
        recorded = record(target, probe, trainer, layers={**layers, "": "none"})
        logits = recorded.pop("").values if "" not in layers else recorded[""].values
        labels = class_labels(target, probe, logits, self.labels)
        temperature = self.temperature or self._temperature(logits, labels, probe)
        log.info("%s: ablation at temperature %.3f", target.name, temperature)
        everything = torch.cat((probe.split("val"), probe.split("test")))

        made = self.panels(explained, recorded, probe, judge, trainer, words)
        seen = Seen(made.formulas, made.judgement, everything, self.batch_size)
        trainer().test(seen, verbose=False)
        table: list[Score] = []
        for layer, how in layers.items():
            panels = [one for one in made.panels if one.layer == layer]
            columns = torch.cat([one.predictor.columns for one in panels]).unique()
            head = heads[layer]
            val, chosen = self._images(probe, head is not None)
            rows = everything[chosen]
            z = recorded[layer].values[rows][:, columns].T.contiguous()
            if head is not None:
                effect: Effect = LinearEffect(head, columns, logits[rows], labels[rows], temperature)
            else:
                ways = Measuring(target, probe, trainer, layer, labels, temperature, self.combine)
                effect = ways.effect(columns, z, rows, logits[rows], self.nodes, self.most_nodes)
            damage = Damage(
                [one.predictor for one in panels],
                seen.scores if len(chosen) == len(everything) else seen.scores[:, chosen],
                columns,
                z,
                val,
                effect,
                tuple(self.modes),
                self.steps,
                self.lr,
                max(1, BYTES // (8 * 3 * FEWEST * len(rows))),
            )
            trainer().test(damage, verbose=False)
            pool = how if head is not None else f"{how}, {self.combine}"
            for p, panel in enumerate(panels):
                for mode in self.modes:
                    value, sem = damage.values[mode][p].tolist(), damage.sems[mode][p].tolist()
                    status = ["no_effect" if math.isnan(one) else "ok" for one in value]
                    found = zip(value, sem, status, strict=True)
                    table += rows_of_table(
                        panel,
                        found,
                        f"ablation_{mode}",
                        target.name,
                        pool,
                        judge.name,
                        f"{probe.name}/test:{len(rows) - val}",
                    )
        return Scores(table)

    def _images(self, probe: "Probe", exact: bool) -> tuple[int, Tensor]:
        """How many val images are used, and the places among all val and test images, val first, of those used."""
        val, test = len(probe.split("val")), len(probe.split("test"))
        most = max(val, test) if exact or self.most_images is None else self.most_images
        first = torch.linspace(0, val - 1, min(val, most)).long()
        return len(first), torch.cat((first, val + torch.linspace(0, test - 1, min(test, most)).long()))

    def _temperature(self, logits: Tensor, labels: Tensor, probe: "Probe") -> float:
        """Fitted on val; against the network's own answers the best temperature would be 0, so there it is 1."""
        val = probe.split("val")
        return 1.0 if self.labels == "predicted" else fit_temperature(logits[val], labels[val])
