"""The class head: which labels the loss is taken against, how sure it is, and whether a layer feeds it linearly."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuronx.errors import UserError, unknown
from neuronx.recording.maps import pooled
from neuronx.scoring.ablation.replacing import writer
from neuronx.targets.replay import Tail

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

LABELS = ("true", "predicted")
FEW = 8
"""Images that show whether a layer feeds the head linearly."""


@dataclass(frozen=True)
class LinearHead:
    """Logits are weight @ pooled activations + a constant.

    Attributes:
        weight: (C, K) float32.
    """

    weight: Tensor


def cross_entropy(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """Of each image, in float64: from logits (..., B, C) and labels (B,) to (..., B), natural logarithm."""
    scaled = logits.double() / temperature
    return scaled.logsumexp(-1) - scaled.gather(-1, labels.expand(scaled.shape[:-1])[..., None])[..., 0]


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T that minimises the mean cross entropy of logits / T, between 0.02 and 50.

    The cross entropy is convex in 1 / T, so its slope is bisected; the same input gives the same number.

    Args:
        logits: (B, C).
        labels: (B,).
    """
    scores = logits.double()
    own = scores.gather(1, labels[:, None])[:, 0]
    low, high = -3.912, 3.912  # of log(1 / T)
    for _ in range(50):
        middle = (low + high) / 2
        expected = ((scores * 2.718281828459045**middle).softmax(1) * scores).sum(1)
        if float((expected - own).mean()) > 0:
            high = middle
        else:
            low = middle
    return float(2.718281828459045 ** -((low + high) / 2))


def class_labels(target: "Target", probe: "Probe", logits: Tensor, labels: str = "true") -> Tensor:
    """What the cross entropy of each image is taken against, (N,) int64.

    Args:
        target: The network.
        probe: The images.
        logits: (N, C) of all images.
        labels: `true` for the probe's labels, `predicted` for the network's largest logit.

    Raises:
        UserError: Labels that are missing, or count other classes than the network does.
    """
    if labels not in LABELS:
        raise unknown("kind of labels", labels, LABELS)
    if labels == "predicted":
        return logits.argmax(1)
    instead = "or compare with the network's own answers: labels=predicted."
    C, names = logits.shape[1], probe.class_names
    if probe.labels is None:
        raise UserError(
            f"The pictures of `{probe.name}` have no labels; give pictures of {target.name}'s {C} classes, {instead}"
        )
    found = int(probe.labels.max()) + 1
    if found > C or int(probe.labels.min()) < 0 or (names and len(names) != C):
        raise UserError(
            f"{target.name} tells {C} classes apart, `{probe.name}` is labelled with {len(names) or found}: the loss "
            f"needs labels that count the network's own classes, {instead}"
        )
    own = target.class_names
    if names and own and own != tuple(names) and set(own) == set(names):
        raise UserError(f"The classes of {target.name} and `{probe.name}` are the same in another order; {instead}")
    return probe.labels


def few_images(target: "Target", probe: "Probe") -> Tensor:
    """The first test images, as the network takes them; UserError for a generator, which has no classes to lose."""
    if target.latents is not None:
        raise UserError(
            f"{target.name} generates pictures and has no class head, which ablation scores and importance need: take "
            "sim=correlation, or a classifier."
        )
    images, _ = next(iter(probe.loader(target.transform, probe.split("test")[:FEW])))
    return images


def find_linear_head(target: "Target", layer: str, pool: str, images: Tensor) -> LinearHead | None:
    """The linear map from a layer's pooled activations to the logits, if there is one.

    It is found by what it does, not by its name: a Linear of the right shape (or none at all, where the layer puts out
    the logits) must give the network's logits on these images, and also when units are raised and lowered.

    Raises:
        UserError: A network without class head, or a layer whose units cannot be replaced.
    """
    tail = Tail(target, layer)
    with torch.inference_mode():
        tail.load(images)
        z = pooled(tail.output, pool, target.prefix_tokens or 0)
        C, K = tail.logits.shape[1], z.shape[1]
        maps = [(m.weight, m.bias) for m in target.module.modules() if isinstance(m, nn.Linear)]
        for weight, bias in [*maps, *([(torch.eye(C), None)] if C == K else [])]:
            if weight.shape != (C, K) or not _close(nn.functional.linear(z, weight, bias), tail.logits):
                continue
            units = torch.linspace(0, K - 1, 8).long()
            raised = z[:, units].T + 4 * z.std().clamp(min=1e-6) * torch.tensor([1, -1] * 4)[:, None]
            expected = tail.logits + (raised - z[:, units].T)[..., None] * weight.T[units][:, None]
            change = writer("shift", pool, target.prefix_tokens or 0, units, raised, z)
            if _close(tail.run(len(units), change).view_as(expected), expected):
                return LinearHead(weight.detach().float().clone())
    return None


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-4 * b.abs().max())
