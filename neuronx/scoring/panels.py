"""What both ways to score share: who claims what about which unit, beside floors and a ceiling, and what each predicts.

Whatever is asked of the judge is asked at once: the explanations' concepts, random ones, what the ceiling may use.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.concepts.formula import Formulas
from neuronx.errors import unknown
from neuronx.scoring.ceiling import Ceiling, Gram, fit_ceiling
from neuronx.scoring.claims import Claim, alive, claims, drawn, judged_by, permuted
from neuronx.scoring.floors import CEILING
from neuronx.scoring.simulator import Predictor
from neuronx.types import Activations, Explanation, Judge, Judgement, Score, TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


@dataclass(frozen=True)
class Panel:
    """The claims of one method about one layer.

    Attributes:
        layer: The layer.
        claims: About its units, whether they can be scored or not.
        predictor: Of those whose status is ok, in order.
    """

    layer: str
    claims: Sequence[Claim]
    predictor: Predictor


@dataclass(frozen=True)
class Panels:
    """All that is to be scored, and the judge's answer to every concept in it.

    Attributes:
        panels: Layer by layer, method by method.
        formulas: The concepts that predictors count, over the atoms that the judge was asked about.
        judgement: Of the atoms, in their order.
    """

    panels: Sequence[Panel]
    formulas: Formulas
    judgement: Judgement


@dataclass(frozen=True)
class Beside:
    """What stands beside the explanations in a table: options of both ways to score.

    Attributes:
        seed: Of the floors.
        floors: Whether to add rows `shuffled-<method>` and `random-<method>`.
        ceiling: Whether to add the row `ceiling`.
        ceiling_concepts: How many concepts the ceiling may use: first those of the explanations, then random ones of
            the judge's vocabulary, or of the word list where the judge knows any phrase.
        batch_size: Images at a time.
    """

    seed: int = 0
    floors: bool = True
    ceiling: bool = True
    ceiling_concepts: int = 2000
    batch_size: int = 128

    def panels(
        self,
        explained: Mapping[str, Sequence[Explanation]],
        recorded: Mapping[str, Activations],
        probe: "Probe",
        judge: Judge,
        trainer: TrainerFactory,
        words: Sequence[str] = (),
    ) -> Panels:
        """Lines up explanations, floors and ceiling; fits the ceiling.

        Args:
            explained: Method -> its explanations.
            recorded: Layer -> activations.
            probe: The images.
            judge: Who says which concepts an image shows.
            trainer: Makes trainers.
            words: What the random floor and the ceiling draw from where the judge has no vocabulary.

        Raises:
            UserError: Explanations of an unknown unit, two for one unit, or broken formulas; activations that are not
                finite.
        """
        test, fit = probe.split("test"), probe.split("train", "val")
        live = {layer: (alive(one, fit), alive(one, test)) for layer, one in recorded.items()}
        made = {layer: claims(explained, one, *live[layer]) for layer, one in recorded.items()}
        own = _concepts(made.values())
        pool = judge.vocabulary(probe) or tuple(words) or own
        by_chance = {layer: drawn(found, pool, self.seed) if self.floors else [] for layer, found in made.items()}
        broad = self._broad(own, pool) if self.ceiling else ()
        formulas = Formulas((*own, *broad, *_concepts(by_chance.values())))
        judgement = judge.judge(formulas.atoms, probe, trainer)
        known = formulas.places(judgement.known)

        panels: list[Panel] = []
        for layer in recorded:
            mine = judged_by(known, made[layer])
            beside = [replace(a, status=b.status) for a, b in zip(by_chance[layer], mine, strict=False)]
            swapped = permuted(mine, self.seed) if self.floors else []
            panels += _panels(layer, [*mine, *beside, *swapped], known)
        chosen = torch.tensor([known[concept] for concept in broad if concept in known], dtype=torch.long)
        if len(chosen):
            train, val = (
                Gram(formulas, judgement, chosen, recorded, probe.split(split), self.batch_size)
                for split in ("train", "val")
            )
            for layer, found in fit_ceiling(train, val, trainer).items():
                panels.append(_ceiling_panel(layer, made[layer], *live[layer], chosen, found))
        return Panels(panels, formulas, judgement)

    def _broad(self, own: Sequence[str], pool: Sequence[str]) -> list[str]:
        """What the ceiling may use: `ceiling_concepts` of the explanations' concepts and the pool."""
        draw, limit = random.Random(f"{self.seed}/{CEILING}"), self.ceiling_concepts
        if len(own) >= limit:
            return sorted(draw.sample(own, limit))
        others = sorted(set(pool) - set(own))
        return [*own, *sorted(draw.sample(others, min(len(others), limit - len(own))))]


def asked_for(explained: Mapping[str, Sequence[Explanation]], target: "Target") -> dict[str, str]:
    """Layer -> pooling, of the layers that explanations are about; UserError for one that was not asked for."""
    wanted = dict.fromkeys(one.unit.layer for found in explained.values() for one in found)
    for layer in wanted:
        if layer not in target.layers:
            raise unknown(f"layer among those asked for of {target.name}", layer, target.layers)
    return {layer: target.layers[layer] for layer in wanted}


def rows_of_table(
    panel: Panel, found: Iterable[tuple[float, float, str]], name: str, target: str, pool: str, judge: str, images: str
) -> list[Score]:
    """A row for each claim; those that could not be scored have the value NaN.

    Args:
        panel: The claims.
        found: (value, standard error, status) of the claims whose status is ok, in order.
        name: Of the score.
        target: Name of the network.
        pool: Of the layer.
        judge: Name of the judge.
        images: `<data>/<split>:<n>`.
    """
    results = iter(found)
    rows = []
    for one in panel.claims:
        value, sem, status = next(results) if one.status == "ok" else (math.nan, math.nan, one.status)
        rows.append(
            Score(
                target=target,
                pool=pool,
                unit=one.explanation.unit,
                method=one.method,
                score=name,
                value=value,
                sem=sem,
                n=int(images.rsplit(":", 1)[1]),
                status=status,
                explanation=str(one.explanation),
                judge=judge,
                images=images,
            )
        )
    return rows


def _concepts(made: Iterable[Sequence[Claim]]) -> tuple[str, ...]:
    """The distinct concepts of some claims, formulas whole, sorted."""
    return tuple(sorted({concept for found in made for one in found for concept, _ in one.explanation.terms}))


def _panels(layer: str, made: Sequence[Claim], known: Mapping[str, int]) -> list[Panel]:
    """The claims about one layer, sorted by method, with what they predict."""
    panels = []
    for method in dict.fromkeys(one.method for one in made):
        mine = [one for one in made if one.method == method]
        sound = [one for one in mine if one.status == "ok"]
        terms = [one.explanation.terms for one in sound]
        longest = max(map(len, terms), default=0)
        concepts = [[known[concept] for concept, _ in own] + [0] * (longest - len(own)) for own in terms]
        weights = [[weight for _, weight in own] + [0.0] * (longest - len(own)) for own in terms]
        columns = torch.tensor([one.column for one in sound], dtype=torch.long)
        bias = torch.tensor([one.explanation.bias for one in sound], dtype=torch.float64)
        shape = len(sound), longest
        which = torch.tensor(concepts, dtype=torch.long).view(shape)
        how_much = torch.tensor(weights, dtype=torch.float64).view(shape)
        panels.append(Panel(layer, mine, Predictor(layer, columns, which, how_much, bias)))
    return panels


def _ceiling_panel(
    layer: str, made: Sequence[Claim], on_fit: Tensor, on_test: Tensor, chosen: Tensor, ceiling: Ceiling
) -> Panel:
    """The ceiling of every unit that any method explains, whole or in parts; a layer's own units come first in it."""
    units: dict[Unit, int] = {}
    for one in made:
        unit = one.explanation.unit
        units[replace(unit, part=None)] = one.column if unit.part is None else unit.index
    active = (on_fit & on_test).tolist()
    found = []
    for unit, column in sorted(units.items()):
        text = f"ridge on {len(chosen)} concepts, penalty {ceiling.penalty[column]:g}"
        status = "ok" if active[column] else "inactive"
        found.append(Claim(CEILING, Explanation(unit, ((text, 1.0),)), column, status))
    columns = torch.tensor([one.column for one in found if one.status == "ok"], dtype=torch.long)
    return Panel(layer, found, Predictor(layer, columns, chosen, ceiling.weights[columns], ceiling.bias[columns]))
