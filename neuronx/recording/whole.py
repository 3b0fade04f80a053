"""Exemplars of layers that say one thing of a whole image, such as a transformer's class token."""

from collections.abc import Mapping

import torch

from neuronx.data.probe import Probe
from neuronx.recording.exemplars import Exemplars
from neuronx.recording.record import record
from neuronx.targets.target import Target
from neuronx.types import TrainerFactory


def whole_images(
    target: Target,
    probe: Probe,
    trainer: TrainerFactory,
    layers: Mapping[str, str],
    *,
    k: int = 15,
    quantile: float = 0.99,
) -> dict[str, Exemplars]:
    """The images of train and val on which each unit's pooled activation is largest; no place in them counts.

    Args:
        target: The network.
        probe: The images.
        trainer: Makes the trainer of the pass.
        layers: Layer -> pooling.
        k: Images of each unit; all if there are fewer.
        quantile: Of the thresholds, over images.

    Raises:
        UserError: As `record`.
    """
    rows = probe.split("train", "val")
    found = {}
    for layer, one in record(target, probe, trainer, dict(layers)).items():
        values = one.values[rows]
        # Stable, so that of equals the smaller row is first.
        best = values.argsort(dim=0, descending=True, stable=True)[:k]
        thresholds = torch.cat([part.quantile(quantile, dim=0) for part in values.split(1024, 1)])
        peaks = values.gather(0, best).T.contiguous()
        places = torch.zeros_like(best.T)
        found[layer] = Exemplars(one.units, rows[best].T, peaks, places, thresholds, quantile, None, len(rows))
    return found
