"""Linear Explanations as a method: each unit as a short weighted sum of concepts."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from torch import Tensor

from neuronx.concepts.formula import quoted
from neuronx.concepts.joined import WordsBeside, join
from neuronx.concepts.judged import recalled, with_support
from neuronx.concepts.seen import as_seen_by
from neuronx.errors import UserError, unknown
from neuronx.methods.linear import elastic_net
from neuronx.methods.linear.moments import ConceptMoments, Rows
from neuronx.methods.linear.search import FoundFormulas, forward, greedy, top
from neuronx.methods.linear.solvers import ProximalNet, saga
from neuronx.options import Count, NotNegative, Seed, Share
from neuronx.recording.tally import lots, ordered
from neuronx.store.cache import write_atomic
from neuronx.store.checkpoints import sorted_file
from neuronx.types import Activations, Concepts, ConceptSource, Explanation, Found, TrainerFactory, Unit, WordList

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


@dataclass(frozen=True, eq=False)
class LinearHeads:
    """K units as sparse linear functions of C concept scores.

    Attributes:
        concepts: The C concepts, in the order of the scores that the heads read.
        units: The K units.
        columns: (K, L) int64, the concepts of each formula in the order of choice; -1 where there is no term.
        weights: (K, L) float64, 0 where there is no term.
        bias: (K,) float64.
        correlation: (K,) float64, of prediction and unit on the val images.
        evidence: (K, E) int64, images that show the unit at its strongest.
        encoders: Digests of the encoders that scored the concepts.
    """

    concepts: tuple[str, ...]
    units: tuple[Unit, ...]
    columns: Tensor
    weights: Tensor
    bias: Tensor
    correlation: Tensor
    evidence: Tensor
    encoders: tuple[str, ...] = ()

    @property
    def weight(self) -> Tensor:
        """(K, C) float64, sparse (COO)."""
        there = self.columns >= 0
        row = torch.arange(len(self.units), device=there.device)[:, None].expand_as(there)
        index = torch.stack([row[there], self.columns[there]])
        size = len(self.units), len(self.concepts)
        return torch.sparse_coo_tensor(index, self.weights[there], size, check_invariants=False).coalesce()

    def __call__(self, scores: Tensor) -> Tensor:
        """Predicts the activations (B, K), float64, from concept scores (B, C)."""
        return torch.sparse.mm(self.weight, scores.to(self.bias.dtype).T).T + self.bias

    def explanations(self) -> list[Explanation]:
        """The formulas in words, in the order of the units; those of units that never change have no terms."""
        columns, weights = self.columns.tolist(), self.weights.tolist()
        bias, correlation = self.bias.tolist(), self.correlation.tolist()
        result = []
        for k, unit in enumerate(self.units):
            pairs = [(quoted(self.concepts[c]), w) for c, w in zip(columns[k], weights[k], strict=True) if c >= 0]
            terms = tuple(sorted(pairs, key=lambda pair: -pair[1]))
            evidence = tuple(self.evidence[k].tolist()) if terms else ()
            notes = (("val correlation", correlation[k]),) if terms else ()
            result.append(Explanation(unit, terms, bias[k], evidence, notes, self.encoders))
        return result

    def save(self, path: str | Path) -> Path:
        """Writes the heads to one safetensors file."""
        tensors = {name: getattr(self, name).contiguous() for name in _SAVED}
        names = {"concepts": self.concepts, "units": [str(unit) for unit in self.units], "encoders": self.encoders}
        lists = {name: json.dumps(values) for name, values in names.items()}
        return write_atomic(path, sorted_file(tensors, {"kind": "neuronx linear heads", **lists}))

    @classmethod
    def load(cls, path: str | Path) -> "LinearHeads":
        """Reads what `save` wrote. Raises UserError when the file is something else."""
        try:
            with safe_open(path, "pt") as file:
                names, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception as error:
            raise UserError(f"{path} cannot be read as linear heads ({error}); train.py le=... writes them.") from None
        if names.get("kind") != "neuronx linear heads":
            raise UserError(f"{path} holds no linear heads; train.py le=... writes them.")
        units = tuple(Unit.parse(unit) for unit in json.loads(names["units"]))
        encoders = tuple(json.loads(names.get("encoders", "[]")))
        values = {name: tensors[name] for name in _SAVED}
        return cls(tuple(json.loads(names["concepts"])), units, **values, encoders=encoders)


_SAVED = ("columns", "weights", "bias", "correlation", "evidence")


log = logging.getLogger(__name__)

STRONGEST = 5
"""Images that decide whether a concept shows up, and images kept as evidence of a unit."""
_COLUMNS = 512  # looked at together, to bound the memory


def active_concepts(concepts: Concepts, rows: Tensor, min_top: float, min_std: float) -> Tensor:
    """The concepts that the images show: (C',) int64, of those that pass the published activity filter.

    A concept passes when the mean of its five largest scores is at least `min_top` and its standard deviation at least
    `min_std`. Only the images given count, so that none of the test images has a say.

    Args:
        concepts: C concepts on N images.
        rows: (R,) the images to look at.
        min_top: In [0, 1].
        min_std: Of the scores.

    Raises:
        UserError: When none passes, or scores are NaN or infinite.
    """
    passed = []
    for start in range(0, len(concepts.names), _COLUMNS):
        block = concepts.scores[:, start : start + _COLUMNS][rows].float()
        deviation = block.std(0)
        if broken := (~deviation.isfinite()).nonzero().flatten().tolist():
            raise UserError(f"Concept `{concepts.names[start + broken[0]]}` has scores that are NaN or infinite.")
        top = block.topk(min(STRONGEST, len(rows)), dim=0).values.mean(0)
        passed.append((top >= min_top) & (deviation >= min_std))
    found = torch.cat(passed).nonzero().squeeze(1)
    total = len(concepts.names)
    if not len(found):
        raise UserError(
            f"None of the {total} concepts shows on the {len(rows)} images of train and val (five scores of {min_top} "
            f"on average, deviation {min_std}): take other concepts, or lower min_top."
        )
    if len(found) < total:
        log.info("the activity filter removed %d of %d concepts", total - len(found), total)
    return found


def strongest_images(recorded: Activations, columns: Tensor, rows: Tensor) -> Tensor:
    """(K, 5) int64: of each of the units in `columns`, those of `rows` (R,) with the highest activation, equals by lot.

    Raises:
        UserError: When an activation is NaN or infinite.
    """
    found, drawn = [], lots(rows, torch.tensor(0)).argsort()
    for part in columns.split(_COLUMNS):
        block = recorded.values[:, part][rows] if len(part) < recorded.values.shape[1] else recorded.values[rows]
        if broken := (~block.double().sum(0).isfinite()).nonzero().flatten().tolist():
            raise UserError(
                f"Unit {recorded.units[int(part[broken[0]])]} of layer `{recorded.layer}` has activations that are "
                "NaN or infinite: check the network's weights and its preprocessing."
            )
        keys = ordered(block[drawn].T + 0.0) << 32 | torch.arange(len(rows) - 1, -1, -1)
        found.append(rows[drawn][keys.topk(min(STRONGEST, len(rows))).indices])
    return torch.cat(found)


SOLVERS = ("exact", "saga", "prox")
SEARCHES = ("forward", "greedy", "top")
FEWEST = 10
"""Images that train and val must have, each."""


class LinearExplanations:
    """Explains units by sparse linear functions of concepts (Oikarinen and Weng, ICML 2024).

    With labels as concepts this is LE(label), with CLIP scores LE(clip). Concepts and units keep their own scale in the
    result: activation ~ bias + sum of weight times concept score. A unit that never changes on the train images is
    inactive: it has no terms. Every other unit has at least one.

    Where this differs from the published code: `search=forward`; least squares instead of 100 steps of Adam; the
    elastic net is solved, with units standardised by the train images alone; no statistic looks at test images.
    """

    def __init__(
        self,
        concepts: ConceptSource,
        lam: NotNegative = 0.05,
        alpha: Share = 0.99,
        solver: str = "exact",
        search: str = "forward",
        max_length: Count | None = None,
        tolerance: NotNegative | None = None,
        width: Count = 10,
        positive: bool = False,
        min_top: float = 0.5,
        min_std: NotNegative = 1e-5,
        most: Count = 10_000,
        epochs: Count | None = None,
        seed: Seed = 0,
        min_support: NotNegative = 0,
        beside: WordList | None = None,
    ) -> None:
        """Chooses how to fit.

        Args:
            concepts: Scores images on concepts.
            lam: Weight of the elastic net's absolute values, which rank the concepts for `greedy` and `top`.
            alpha: Share of L1 in the elastic net, in (0, 1].
            solver: Of the elastic net: `exact`; `saga`, the published library; `prox`, gradient steps over the images
                for concept sets whose Gram matrix does not fit in memory. With the latter two, `forward` chooses among
                the concepts that they rank high for some unit.
            search: `forward`, selection over all concepts; `greedy`, the published search; `top`, the first in rank.
            max_length: Largest number of terms, for `top` the number; 10, and 5 for `top`, by default.
            tolerance: Gain in correlation on val that is worth a term; by default .003, for `greedy` .02 as published.
            width: Candidates that `greedy` tries in a round.
            positive: Make `forward` choose only concepts that go together with the unit.
            min_top: A concept takes part when its five largest scores are this high on average,
            min_std: and its scores deviate this much.
            most: After `saga` or `prox`, the largest number of concepts that go on to the search.
            epochs: Of `saga` (500 by default); of `prox` at most (2000).
            seed: Of the order of images in `saga`.
            min_support: A concept takes part when so many train images show it, by its scores: those that show it with
                probability .3 count .3.
            beside: The list of `concepts=`: where features of pictures stand beside its words (labels+visual,
                words+visual), they and `concepts` are one list, and tables add +visual to the method's name.
        """
        if solver not in SOLVERS:
            raise unknown("solver of linear explanations", solver, SOLVERS)
        if search not in SEARCHES:
            raise unknown("search of linear explanations", search, SEARCHES)
        length = max_length if max_length is not None else 5 if search == "top" else 10
        gain = tolerance if tolerance is not None else 0.02 if search == "greedy" else 0.003
        for name, value, fine, right in (
            ("lam", lam, lam > 0, "positive"),
            ("alpha", alpha, 0 < alpha <= 1, "above 0 and at most 1"),
            ("max_length", length, length >= 1, "at least 1"),
            ("width", width, width >= 1, "at least 1"),
        ):
            if not fine:
                raise UserError(f"{name} of linear explanations is {value}; it must be {right}.")
        self.concepts, self.suffix = join(concepts, beside), beside.suffix if isinstance(beside, WordsBeside) else ""
        self.lam, self.alpha, self.solver, self.search = lam, alpha, solver, search
        self.max_length, self.tolerance, self.width, self.positive = length, gain, width, positive
        self.min_top, self.min_std, self.most, self.epochs, self.seed = min_top, min_std, most, epochs, seed
        self.min_support = min_support

    @property
    def encoders(self) -> tuple[str, ...]:
        """Digests of the encoders that score the concepts."""
        return self.concepts.encoders

    def explain(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Found | list[Explanation]:
        """Explains the units asked for of every layer; see `fit`."""
        heads, found = self._fit(target, probe, trainer)
        explanations = with_support(heads.explanations(), lambda names: recalled(found, names), probe)
        return Found(explanations, name=self.suffix) if self.suffix else explanations

    def fit(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> LinearHeads:
        """Fits the units asked for of all layers at once.

        Fits on the train images and chooses on the val images. The heads read the scores of all concepts of the source,
        in its order, and know each unit's strongest train images.

        Raises:
            UserError: With fewer than 10 images in train or val, no concept that shows up, activations or scores that
                are NaN or infinite, or a solver that is not installed.
        """
        return self._fit(target, probe, trainer)[0]

    def _fit(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> tuple[LinearHeads, Concepts]:
        """The heads, and the concepts that they read."""
        from neuronx.recording.record import record

        train, val = probe.splits["train"], probe.splits["val"]
        for name in ("train", "val"):
            if len(probe.splits[name]) < FEWEST:
                raise UserError(
                    f"Linear explanations need {FEWEST} images in {name}; `{probe.name}` has "
                    f"{len(probe.splits[name])} there."
                )
        found = as_seen_by(target, self.concepts).concepts(probe, trainer)
        kept = active_concepts(found, torch.cat([train, val]), self.min_top, self.min_std)
        if self.min_support:
            kept = kept[found.scores[train][:, kept].double().sum(0) >= self.min_support]
            if not len(kept):
                raise UserError(
                    f"No concept is shown by {self.min_support:g} of the {len(train)} train images (min_support): take "
                    "other concepts, or lower it."
                )
        layers = list(record(target, probe, trainer).values())
        columns = [torch.tensor(target.units_of(one.layer, len(one.units))).long() for one in layers]
        evidence = [strongest_images(one, chosen, train) for one, chosen in zip(layers, columns, strict=True)]
        units = tuple(one.units[k] for one, chosen in zip(layers, columns, strict=True) for k in chosen.tolist())

        rows = Rows(found.scores, kept, [one.values for one in layers], columns, train, val)
        return self.fit_rows(rows, found, units, torch.cat(evidence)), found

    def fit_rows(self, rows: Rows, concepts: Concepts, units: tuple[Unit, ...], evidence: Tensor) -> LinearHeads:
        """Fits recorded units; `evidence` (K, E) are images that show them at their strongest."""
        ranking = None
        if self.solver != "exact":
            some, ranking = self._shortlist(rows)
            rows = replace(rows, concepts=rows.concepts[some])
        train, val = rows.moments(rows.train), rows.moments(rows.val)
        broken = ~(train.unit_mean + train.squares + val.unit_mean + val.squares).isfinite()
        if broken.any():
            raise UserError(
                f"Unit `{units[int(broken.nonzero()[0])]}` has values that are NaN or infinite, and so have "
                f"{int(broken.sum()) - 1} others: check the network's weights and its preprocessing."
            )
        formulas = self._search(ranking, train, val)
        chosen = formulas.chosen.cpu()
        return LinearHeads(
            concepts.names,
            units,
            columns=torch.where(chosen >= 0, rows.concepts[chosen.clamp(min=0)], -1),
            weights=formulas.weights.cpu(),
            bias=formulas.bias.cpu(),
            correlation=formulas.correlation.cpu(),
            evidence=evidence,
            encoders=concepts.encoders,
        )

    def _search(self, ranking: Tensor | None, train: ConceptMoments, val: ConceptMoments) -> FoundFormulas:
        if self.search == "forward":
            return forward(train, val, max_length=self.max_length, tolerance=self.tolerance, positive=self.positive)
        if ranking is None:
            problem = elastic_net.standardised(train, self.lam, self.alpha)
            ranking = elastic_net.ranking(*elastic_net.solve(problem), self._depth())
        ranking = ranking.to(train.gram.device)
        if self.search == "top":
            return top(train, val, ranking, length=self.max_length)
        return greedy(train, val, ranking, max_length=self.max_length, tolerance=self.tolerance, width=self.width)

    def _depth(self) -> int:
        """Concepts in rank that a search can get to."""
        return self.max_length * (2 if self.search == "top" else self.width)

    def _shortlist(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The concepts that rank high for some unit (C',), and the ranking (K, M) among them."""
        if self.solver == "saga":
            weights, left = saga(
                *rows.read(rows.train), self.lam, self.alpha, epochs=self.epochs or 500, seed=self.seed
            )
        else:
            net = ProximalNet(rows, self.lam, self.alpha).fit(self.epochs or 2000)
            weights, left = net.net.cpu(), net.left.cpu()
        ranking = elastic_net.ranking(weights, left, self._depth())
        while len(some := ranking.unique()) > self.most and ranking.shape[1] > 1:
            ranking = ranking[:, : ranking.shape[1] // 2]
        place = torch.full((len(rows.concepts),), -1)
        place[some] = torch.arange(len(some))
        return some, place[ranking]
