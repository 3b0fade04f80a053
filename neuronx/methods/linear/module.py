"""Linear explanations of a network as sparse linear heads, which predict its units from concept scores."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from neuronx.errors import UserError
from neuronx.store.atomic import write_atomic
from neuronx.store.checkpoints import sorted_file
from neuronx.types import Explanation, Unit


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
            pairs = [(self.concepts[c], w) for c, w in zip(columns[k], weights[k], strict=True) if c >= 0]
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
