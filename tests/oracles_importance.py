"""Importance of units, computed image by image as the paper puts it."""

import numpy as np
import torch

from neuronx.recording.tally import lots


def share_in_top(impact: list[float], activations: list[float], cutoff: float) -> float:
    """Share of one unit's absolute impact in its top images, read at index int(cutoff * n) of the running sum."""
    drawn = lots(torch.arange(len(activations)), torch.tensor(0)).tolist()
    order = sorted(range(len(activations)), key=lambda row: (-activations[row], drawn[row]))
    running, total = [], 0.0
    for row in order:
        total += abs(impact[row])
        running.append(total)
    return running[int(cutoff * len(order))] / total


def image_impact(logits: np.ndarray, changed: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Half the change of accuracy plus half the change of cross entropy, each over its sum when intact; (N,)."""

    def judged(outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chances = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
        loss = -np.log(chances[np.arange(len(labels)), labels])
        return (outputs.argmax(1) == labels).astype(float), loss

    (acc0, loss0), (acc1, loss1) = judged(logits), judged(changed)
    return 0.5 * ((acc0 - acc1) / acc0.sum() + (loss1 - loss0) / loss0.sum())
