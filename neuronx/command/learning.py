"""The jobs of `train.py`: fit the heads of linear explanations, or train one shipped part."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronx.store.processes import is_first
from neuronx.types import TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.methods.linear.method import LinearExplanations
    from neuronx.targets.target import Target


def fit_linear(
    name: str,
    method: "LinearExplanations",
    targets: "Mapping[str, Target]",
    probe: "Probe",
    trainer: TrainerFactory,
    folder: Path,
) -> Path:
    """Fits the heads of linear explanations, called `name`, for every target; writes them and their formulas.

    Returns the folder, with `<target>.safetensors` (`LinearHeads.load` reads it) and `explanations/` in it.
    """
    from neuronx.report.evaluation import Evaluation, write

    found = {}
    for network, target in targets.items():
        heads = method.fit(target, probe, trainer)
        found[network, name] = heads.explanations()
        if is_first():
            heads.save(folder / f"{network}.safetensors")
    if is_first():
        write(Evaluation(explanations=found), folder)
        for (network, _), explanations in found.items():
            for one in explanations[:10]:
                print(f"{network} {one.unit}: {one}")
        print(f"Files: {folder}")
    return folder


def train_part(task: Any, trainer: TrainerFactory, folder: Path, ckpt_path: str | None, ship: bool) -> Path:
    """Trains one shipped part, prints its card's figures and, if asked, copies it into `checkpoints/`."""
    from neuronx.store import checkpoints

    weights = task.run(trainer, folder, ckpt_path)
    if is_first():
        print(weights.with_suffix(".md").read_text())
        print(f"Files: {checkpoints.ship(weights).parent if ship else folder}")
    return weights
