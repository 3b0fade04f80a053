"""The task `train.py sae=`: an autoencoder for a layer of a network, measured, with a card, in SAELens' layout too."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.errors import UserError, unknown
from neuronx.methods.sae.autoencoder import KINDS, SparseAutoencoder
from neuronx.methods.sae.measures import reconstruction
from neuronx.methods.sae.rows import RowBatches, rows_of
from neuronx.options import Count, NotNegative, Positive, Seed
from neuronx.recording.fit import fit_module
from neuronx.store import checkpoints
from neuronx.store.cache import write_atomic
from neuronx.store.processes import is_first
from neuronx.targets.encoder import Dictionary
from neuronx.targets.target import Target
from neuronx.types import TrainerFactory

ARCHITECTURES = {"topk": "topk", "batchtopk": "jumprelu", "matryoshka": "jumprelu", "relu": "standard"}
"""What SAELens calls the encoders when they are used."""
FLOORS = ("random", "frozen", "cut")
"""Dictionaries to compare with: an encoder that learned nothing, one whose decoder stayed random, and the layer's own
units, each cut to the density of the latents."""


def cut(rows: Tensor, density: float) -> dict[str, Tensor]:
    """The layer's own units, each 0 but on this share of rows (n, D): folded weights as an autoencoder has them."""
    threshold = torch.stack([column.quantile(1 - density) for column in rows[: 2**20].T]).clamp(min=0)
    eye, zero = torch.eye(rows.shape[1]), torch.zeros(rows.shape[1])
    return {"W_enc": eye, "b_enc": zero, "W_dec": eye.clone(), "b_dec": zero.clone(), "threshold": threshold}


@dataclass(frozen=True)
class SaeTask:
    """Trains, measures and writes an autoencoder for a layer.

    Attributes:
        kind: topk, batchtopk, matryoshka or relu.
        expansion: Latents for each unit of the layer.
        k: Latents of a row; at most as many as there are.
        where: first, patches or positions; by default first where the layer is pooled so, else all positions.
        epochs: A checkpoint is written after each.
        steps: Batches in an epoch.
        batch_size: Rows in a batch.
        lr: Learning rate.
        l1: Weight of the sum of latents, for relu.
        aux: Weight of the loss of dead latents.
        dead_after: Rows after which a latent that has not fired is dead.
        prefixes: Prefixes of the dictionary that reconstruct alone, for matryoshka.
        floor: Makes one of `FLOORS` instead.
        seed: Of the first weights and of the order of the rows.
        pictures: Makes the pictures to learn from where the user names none.
    """

    kind: str
    expansion: Positive
    k: Count
    epochs: Count
    steps: Count
    batch_size: Count
    lr: Positive
    l1: NotNegative
    aux: NotNegative
    dead_after: Count
    prefixes: Count
    seed: Seed
    where: str | None = None
    floor: str | None = None
    pictures: Callable[[], Probe] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of autoencoder", self.kind, KINDS)
        if self.floor is not None and self.floor not in FLOORS:
            raise unknown("floor", self.floor, FLOORS)

    def run(
        self,
        target: Target,
        layer: str,
        probe: Probe,
        trainer: TrainerFactory,
        folder: Path,
        ckpt_path: str | None = None,
    ) -> Path:
        """Trains on the train pictures, measures on val, and writes weights and card into `folder`.

        Returns the path of `<network>_<layer>_<kind>.safetensors`, which `dictionary=` reads; the folder of the same
        name holds what SAELens reads. The figures are those of the weights as they are stored.

        Raises:
            UserError: A layer that does not exist or has no such positions, or a k above the number of latents.
        """
        where = self.where or ("first" if target.layers.get(layer) == "first" else "positions")
        rows = rows_of(target, layer, where, probe, trainer)
        units = rows.shape[2]
        latents = max(1, round(self.expansion * units))
        if self.k > latents:
            raise UserError(
                f"sae.k={self.k} of {latents} latents ({self.expansion} x {units}): it must be at most that."
            )
        known = probe.split("train")
        name = "_".join(filter(None, (target.name, layer or "output", self.kind, self.floor)))
        facts: dict[str, Any] = {"processor seconds": 0}
        module = self.learner(units, latents)
        module.standardise(rows, known)
        if self.floor not in ("random", "cut"):
            batches = RowBatches(rows, known, self.batch_size, self.steps, self.seed)
            runner, facts = fit_module(module, batches, trainer, self.epochs, folder, ckpt_path=ckpt_path)
            facts = {
                "steps": runner.global_step,
                "rows seen": runner.global_step * self.batch_size * runner.world_size,
                **facts,
            }
        made = cut(rows[known].flatten(0, 1), self.k / latents) if self.floor == "cut" else module.folded()
        weights = {key: value.float() for key, value in checkpoints.rounded(made).items()}
        held_out = rows[probe.split("val")].flatten(0, 1)
        figures = reconstruction(self.dictionary(weights), weights, held_out)
        path = folder / f"{name}.safetensors"
        if is_first():
            self.write(path, weights, self.card(target, layer, where, probe, units, latents, facts, figures))
        return path

    def learner(self, units: int, latents: int) -> SparseAutoencoder:
        """An autoencoder that has learned nothing."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return SparseAutoencoder(
                units,
                latents,
                self.kind,
                self.k,
                self.l1 if self.kind == "relu" else 0.0,
                self.aux if self.kind != "relu" else 0.0,
                self.dead_after,
                self.prefixes if self.kind == "matryoshka" else 1,
                self.floor == "frozen",
                self.lr,
            )

    def dictionary(self, weights: dict[str, Tensor]) -> Dictionary:
        """The encoder of folded weights."""
        k = self.k if self.kind == "topk" and "threshold" not in weights else None
        return Dictionary(
            weights["W_enc"].T, weights["b_enc"], weights["b_dec"], threshold=weights.get("threshold"), k=k
        )

    def card(
        self,
        target: Target,
        layer: str,
        where: str,
        probe: Probe,
        units: int,
        latents: int,
        facts: dict[str, Any],
        figures: dict[str, float],
    ) -> dict[str, Any]:
        """What the autoencoder is, how it was made, and how good it is; the first part is SAELens' configuration."""
        what = f"A {self.kind} autoencoder" + {
            "random": " that learned nothing",
            "frozen": " whose decoder stayed random",
        }.get(self.floor or "", "")
        kind, command = self.kind, f" sae.floor={self.floor}" if self.floor else ""
        if self.floor == "cut":
            what, kind, latents = "Units cut to the density of latents", "batchtopk", units
        pool = target.layers.get(layer)
        return {
            "about": f"{what}: {latents} latents of the {units} units of `{layer}` of {target.name}.",
            "command": f"python train.py sae={self.kind} target={target.name} layers={layer} pool={pool}{command}",
            "architecture": ARCHITECTURES[kind],
            "d_in": units,
            "d_sae": latents,
            **({"k": self.k} if kind == "topk" else {}),
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {"hook_name": layer, "model_name": target.name, "positions": where},
            "training": {
                "kind": self.kind,
                "latents of a row": self.k,
                "pictures": f"{probe.name}/train:{len(probe.split('train'))}",
                "positions": where,
                "batch size": self.batch_size,
                "learning rate": self.lr,
                "seed": self.seed,
                **facts,
            },
            "figures": {
                **{name: round(value, 4) for name, value in figures.items()},
                "cpu_s": facts["processor seconds"],
                "rows": f"{probe.name}/val:{len(probe.split('val'))}",
            },
        }

    @staticmethod
    def write(path: Path, weights: dict[str, Tensor], card: dict[str, Any]) -> None:
        """Writes weights and card, and SAELens' folder of them."""
        from safetensors.torch import save

        checkpoints.write(path.parent, path.stem, weights, card)
        folder = path.with_suffix("")
        settings = {key: value for key, value in card.items() if key not in ("about", "command", "training", "figures")}
        write_atomic(folder / "cfg.json", (json.dumps(settings, indent=1) + "\n").encode())
        write_atomic(folder / "sae_weights.safetensors", save(weights))
