"""Linear explanations as a module: sparse heads that predict units from concepts, fitted in one pass by a Trainer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from neuronx.errors import UserError
from neuronx.methods.linear.moments import Moments, RunningMoments
from neuronx.methods.linear.search import Formulas
from neuronx.store.atomic import write_atomic
from neuronx.types import Explanation, Unit

Search = Callable[[Moments, Moments], Formulas]
"""From the moments of train and of val to the formulas."""


class LinearHeads(LightningModule):
    """K units as sparse linear functions of C concept scores.

    `trainer(max_epochs=1).fit(heads, rows)` makes one pass over the train and the val rows, adds up their moments over
    batches and ranks, and solves: no gradients, no epochs. The result does not depend on the number of processes but
    for the last bits.

    Attributes:
        concepts: The C concepts, in the order of the scores that the heads read.
        units: The K units.
        columns: (K, L) int64, the concepts of each formula in the order of choice; -1 where there is no term.
        weights: (K, L) float64, 0 where there is no term.
        bias: (K,) float64.
        correlation: (K,) float64, of prediction and unit on the val images.
        evidence: (K, E) int64, images that show the unit at its strongest; set by whoever knows them.
        encoders: Digests of the encoders that scored the concepts; likewise.
    """

    def __init__(
        self,
        concepts: tuple[str, ...],
        units: tuple[Unit, ...],
        length: int,
        search: Search | None = None,
        read: Tensor | None = None,
    ) -> None:
        """Makes heads to be fitted.

        Args:
            concepts: C names.
            units: K units.
            length: L, the largest number of terms.
            search: How to find the formulas; needed by `fit` only.
            read: (C',) int64, the concepts among the C that the rows of `fit` hold; all by default.
        """
        super().__init__()
        self.automatic_optimization = False
        self.concepts, self.units, self.search = tuple(concepts), tuple(units), search
        self.read = torch.arange(len(concepts)) if read is None else read
        # Parameters, not buffers: DDP wants a parameter, and would send buffers round before every batch, although the
        # ranks may have different numbers of batches.
        self.columns = nn.Parameter(torch.full((len(units), length), -1), requires_grad=False)
        self.weights = nn.Parameter(torch.zeros((len(units), length), dtype=torch.float64), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(len(units), dtype=torch.float64))
        self.correlation = nn.Parameter(torch.zeros(len(units), dtype=torch.float64), requires_grad=False)
        self.evidence = torch.empty((len(units), 0), dtype=torch.int64)
        self.encoders: tuple[str, ...] = ()

    @property
    def weight(self) -> Tensor:
        """(K, C) float64, sparse (COO)."""
        there = self.columns >= 0
        row = torch.arange(len(self.units), device=there.device)[:, None].expand_as(there)
        index = torch.stack([row[there], self.columns[there]])
        size = len(self.units), len(self.concepts)
        return torch.sparse_coo_tensor(index, self.weights[there], size, check_invariants=False).coalesce()

    def forward(self, scores: Tensor) -> Tensor:
        """Predicts the activations (B, K), float64, from concept scores (B, C)."""
        return torch.sparse.mm(self.weight, scores.to(self.bias.dtype).T).T + self.bias

    def predict_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Predicts from the first part of a batch, the concept scores (B, C)."""
        return self(batch[0])

    def configure_optimizers(self) -> list[Any]:
        """None: nothing is stepped."""
        return []

    def on_fit_start(self) -> None:
        """Begins to add up."""
        size = len(self.read), len(self.units), self.device
        self.train_moments, self.val_moments = RunningMoments(*size), RunningMoments(*size)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Adds (concept scores (B, C'), activations (B, K)) to the moments of train."""
        self.train_moments.add(*batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Adds a batch to the moments of val."""
        if not self.trainer.sanity_checking:
            self.val_moments.add(*batch)

    def on_train_epoch_end(self) -> None:
        """Solves.

        Raises:
            UserError: When a concept or a unit is NaN or infinite on some image.
        """
        if self.search is None:
            raise ValueError("these heads were made without a search and cannot be fitted")
        train, val = self.train_moments.moments().over_ranks(), self.val_moments.moments().over_ranks()
        del self.train_moments, self.val_moments
        for moments in (train, val):
            _check_finite("Unit", moments.unit_mean + moments.squares, self.units)
            _check_finite("Concept", moments.concept_mean, [self.concepts[i] for i in self.read])
        self.hold(self.search(train, val))

    def hold(self, found: Formulas) -> None:
        """Takes over formulas whose columns count among the concepts read."""
        device = self.bias.device
        chosen = found.chosen.cpu()
        columns = torch.where(chosen >= 0, self.read[chosen.clamp(min=0)], -1)
        for parameter, value in (
            (self.columns, columns),
            (self.weights, found.weights),
            (self.bias, found.bias),
            (self.correlation, found.correlation),
        ):
            parameter.data.copy_(value.to(device))

    def explanations(self) -> list[Explanation]:
        """The formulas in words, in the order of the units; those of units that never change have no terms."""
        columns, weights = self.columns.tolist(), self.weights.tolist()
        bias, correlation = self.bias.tolist(), self.correlation.tolist()
        result = []
        for k, unit in enumerate(self.units):
            pairs = [(self.concepts[c], w) for c, w in zip(columns[k], weights[k], strict=True) if c >= 0]
            terms = tuple(sorted(pairs, key=lambda pair: -pair[1]))
            evidence = tuple(self.evidence[k].tolist()) if terms else ()
            notes = (("val correlation", correlation[k]),) if terms else ()
            result.append(Explanation(unit, terms, bias[k], evidence, notes, self.encoders))
        return result

    def save(self, path: str | Path) -> Path:
        """Writes the heads to one safetensors file; under DDP on rank 0 only."""
        tensors = {name: getattr(self, name).detach().cpu() for name in _SAVED}
        names = {"concepts": self.concepts, "units": [str(unit) for unit in self.units], "encoders": self.encoders}
        lists = {name: json.dumps(values) for name, values in names.items()}
        return write_atomic(path, save(tensors, {"kind": "neuronx linear heads", **lists}))

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
        heads = cls(tuple(json.loads(names["concepts"])), units, tensors["columns"].shape[1])
        heads.encoders = tuple(json.loads(names.get("encoders", "[]")))
        for name in _SAVED:
            getattr(heads, name).data = tensors[name]
        return heads


_SAVED = ("columns", "weights", "bias", "correlation", "evidence")


def _check_finite(kind: str, total: Tensor, names: "tuple[Unit, ...] | list[str]") -> None:
    broken = (~total.isfinite()).nonzero().flatten().tolist()
    if broken:
        others = f", and so have {len(broken) - 1} others" if len(broken) > 1 else ""
        raise UserError(
            f"{kind} `{names[broken[0]]}` has values that are NaN or infinite{others}: check the network's weights and "
            "its preprocessing."
        )
