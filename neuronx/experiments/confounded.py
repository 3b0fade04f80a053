"""Words that go together in the pictures at hand: where correlation is fooled, and pairs are not.

For a unit that one word explains, a wrong word of another factor is drawn, and pictures are chosen in which both words
go together. On these the wrong word correlates with the unit as the right one does; on pictures in which one attribute
changes at a time it is worth nothing. Explanations that are chosen on such pictures can be repaired: of the words that
correlate best, the one that pairs bear out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.experiments.explained import explain_all
from neuronx.experiments.given import Given
from neuronx.metrics.correlation import mean_and_sem
from neuronx.options import Count, Seed
from neuronx.recording.record import record
from neuronx.report.inventory import as_text, plain_table
from neuronx.scoring.verification.pairs import centred, correlations
from neuronx.scoring.verification.pictures import Drawer
from neuronx.tables.csv import write_csv
from neuronx.types import Cell, Explanation, Judge

if TYPE_CHECKING:
    from neuronx.data.probe import Probe


ONE, NEITHER = 0.05, 4
"""Pictures with only one of the words, and with neither, for each picture with both."""
FEWEST = 10
"""Pictures with both words that a confounded set needs."""
COLUMNS = (
    "target", "layer", "unit", "method", "right", "wrong", "images", "natural_right", "natural_wrong", "pairs_right",
    "pairs_wrong", "chosen", "repaired",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Confounded:
    """Scores right and wrong words where they go together.

    Attributes:
        judge: Decides which concepts a picture shows.
        drawer: Draws the pool that confounded pictures are chosen from, and the bank of pairs.
        first: Words of one factor.
        second: Words of another.
        pool_size: Pictures of the pool.
        scenes: Of the bank.
        wrong: Wrong words of each unit.
        candidates: Words that correlate best among which pairs choose.
        seed: Of the draws.
    """

    judge: Judge
    drawer: Drawer
    first: Sequence[str]
    second: Sequence[str]
    pool_size: Count = 10000
    scenes: Count = 60
    wrong: Count = 2
    candidates: Count = 5
    seed: Seed = 0

    def run(self, given: Given) -> str:
        """Compares right and wrong words; writes `confounded.csv`, one row a unit and wrong word.

        Raises:
            UserError: Pictures whose words nobody knows, or no unit that one of the words explains.
        """
        words = [*self.first, *self.second]
        pool, bank = self.drawer.pool(self.pool_size), self.drawer.bank(self.scenes)
        shown = _truth(pool, words)
        rows: list[list[Cell]] = []
        for name, target in given.targets.items():
            seen, changed = (self._scores(images, words, given) for images in (pool, bank.images))
            real, moved = (record(target, images, given.trainer) for images in (pool, bank.images))
            for method, explanations in explain_all(given, target).items():
                for explanation in explanations:
                    right = _word(explanation, words)
                    if right is None:
                        continue
                    layer, column = explanation.unit.layer, explanation.unit.index
                    responses = moved[layer].values[bank.rows, column][None].double()
                    pairs = correlations(centred(changed[:, bank.rows], bank.group), centred(responses, bank.group))
                    activations, sign = real[layer].values[:, column].double(), explanation.terms[0][1]
                    for wrong, chosen in self._confounders(right, shown, words, f"{self.seed}/{explanation.unit}"):
                        natural = correlations(_deviations(seen[:, chosen]), _deviations(activations[chosen][None]))
                        both = [
                            float(r[k, 0]) * (1 if sign > 0 else -1) for r in (natural, pairs) for k in (right, wrong)
                        ]
                        best = natural[:, 0].abs().argsort(descending=True)[: self.candidates]
                        repaired = int(best[pairs[best, 0].abs().argmax()])
                        texts = words[right], words[wrong], len(chosen)
                        picked = words[int(best[0])], words[repaired]
                        rows.append([name, layer, column, method, *texts, *both, *picked])
        if not rows:
            raise UserError("No unit is explained by one of the words alone: take more units, or other words.")
        given.write(write_csv, "confounded.csv", COLUMNS, rows)
        return _summary(rows)

    def _scores(self, images: "Probe", words: Sequence[str], given: Given) -> Tensor:
        """The words (W, N) float64 as the judge sees them."""
        judged = self.judge.judge(words, images, given.trainer)
        if not judged.known.all():
            raise UserError(f"The judge {self.judge.name} does not know `{words[int(judged.known.long().argmin())]}`.")
        return judged.scores(torch.arange(len(images))).T.double()

    def _confounders(self, right: int, shown: Tensor, words: Sequence[str], seed: str) -> list[tuple[int, Tensor]]:
        """Wrong words of the other factor, and the pictures in which each goes together with the right one."""
        draw = torch.Generator().manual_seed(int.from_bytes(seed.encode()[-6:], "big"))
        n = len(self.first)
        others = torch.arange(n, len(words)) if right < n else torch.arange(n)
        found = []
        for wrong in others[torch.randperm(len(others), generator=draw)].tolist():
            a, b = shown[:, right], shown[:, wrong]
            both = (a & b).nonzero().flatten()
            one, neither = (
                which.nonzero().flatten()[torch.randperm(int(which.sum()), generator=draw)]
                for which in (a ^ b, ~(a | b))
            )
            if len(both) >= FEWEST:
                kept = both, one[: round(ONE * len(both))], neither[: NEITHER * len(both)]
                found.append((wrong, torch.cat(kept).sort().values))
        return found[: self.wrong]


def _truth(pool: "Probe", words: Sequence[str]) -> Tensor:
    """Which words are true of which pictures: (N, W) bool."""
    names, shown = pool.truth if pool.truth is not None else ((), torch.zeros(len(pool), 0, dtype=torch.bool))
    if missing := [word for word in words if word not in names]:
        raise UserError(f"Nobody knows which pictures of `{pool.name}` show `{missing[0]}`: give words that are known.")
    return shown[:, [names.index(word) for word in words]]


def _word(explanation: Explanation, words: Sequence[str]) -> int | None:
    """The word that alone explains a whole unit, by its place; None for any other explanation."""
    terms = explanation.terms
    alone = len(terms) == 1 and explanation.unit.part is None and terms[0][0] in words
    return words.index(terms[0][0]) if alone else None


def _deviations(values: Tensor) -> Tensor:
    """Values (K, N) less the mean of each row."""
    return centred(values, torch.zeros(values.shape[1], dtype=torch.int64))


def _summary(rows: Sequence[Sequence[Cell]]) -> str:
    """The means over units and wrong words, by network, layer and method."""
    table = plain_table("target", "layer", "method", "measure", "right word", "wrong word", "right is larger", "cases")
    names = plain_table("target", "layer", "method", "chosen on confounded pictures: right", "repaired by pairs: right")
    for key in dict.fromkeys((row[0], row[1], row[3]) for row in rows):
        own = [dict(zip(COLUMNS, row, strict=True)) for row in rows if (row[0], row[1], row[3]) == key]
        where = [str(part) for part in key]
        for measure in ("natural", "pairs"):
            right, wrong = ([float(row[f"{measure}_{word}"] or 0) for row in own] for word in ("right", "wrong"))
            larger = mean_and_sem([float(a > b) for a, b in zip(right, wrong, strict=True)])[0]
            means = (mean_and_sem(right)[0], mean_and_sem(wrong)[0], larger)
            table.add_row(*where, measure, *(f"{mean:.3f}" for mean in means), str(len(own)))
        shares = (mean_and_sem([float(row[name] == row["right"]) for row in own])[0] for name in ("chosen", "repaired"))
        names.add_row(*where, *(f"{share:.3f}" for share in shares))
    return as_text(table, "", names)
