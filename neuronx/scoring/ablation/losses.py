"""The loss of a classifier with one unit after the other at other amounts: exactly where the unit feeds the class head.

An amount is a value of the pooled activation. It gets into a map, or among tokens, in one of three ways (`COMBINE`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from lightning import Trainer
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader

from neuronx.concepts.class_labels import class_labels
from neuronx.errors import UserError, unknown
from neuronx.recording.forward_pass import predict
from neuronx.recording.maps import pooled
from neuronx.targets.replay import Change, Tail

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

LABELS = ("true", "predicted")
FEW = 8
"""Images that show whether a layer feeds the head linearly."""

COMBINE = ("shift", "scale", "set")
"""`shift` adds the same everywhere that the pooling looks; `scale` multiplies there, and shifts where the pooled value
is 0 (or would change its sign under a maximum); `set` puts the amount into every place and token."""

CHUNK_BYTES = 8 * 2**20
"""Of the layer's output, for all copies of a batch that run together."""


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


def compared_with(target: "Target", probe: "Probe", logits: Tensor, labels: str = "true") -> Tensor:
    """What the cross entropy of each image is taken against, (N,) int64.

    Args:
        target: The network.
        probe: The images.
        logits: (N, C) of all images.
        labels: `true` for the probe's labels, `predicted` for the network's largest logit.

    Raises:
        UserError: Labels that are missing, or of other classes than the network's.
    """
    if labels not in LABELS:
        raise unknown("kind of labels", labels, LABELS)
    if labels == "predicted":
        return logits.argmax(1)
    try:
        return class_labels(target, probe, logits.shape[1])
    except UserError as mistake:
        raise UserError(f"{mistake} labels=predicted compares with the network's own answers.") from None


def few_images(target: "Target", probe: "Probe") -> Tensor:
    """The first test images, as the network takes them; UserError for a generator, which has no classes to lose."""
    if target.latents is not None:
        raise UserError(
            f"{target.name} generates pictures and has no class head, which ablation scores and importance need: take "
            "sim=correlation, or a classifier."
        )
    images, _ = next(iter(probe.loader(target.transform, probe.split("test")[:FEW])))
    return images


def find_linear_head(target: "Target", layer: str, pool: str, images: Tensor) -> Tensor | None:
    """The weights (C, K) of the linear map from a layer's pooled activations to the logits, if there is one.

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
        linear = [m for m in target.module.modules() if isinstance(m, nn.Linear)]
        maps = [(m.weight.float(), None if m.bias is None else m.bias.float()) for m in linear]
        for weight, bias in [*maps, *([(torch.eye(C), None)] if C == K else [])]:
            if weight.shape != (C, K) or not _close(nn.functional.linear(z, weight, bias), tail.logits):
                continue
            units = torch.linspace(0, K - 1, 8).long()
            raised = z[:, units].T + 4 * z.std().clamp(min=1e-6) * torch.tensor([1, -1] * 4)[:, None]
            expected = tail.logits + (raised - z[:, units].T)[..., None] * weight.T[units][:, None]
            change = writer("shift", pool, target.prefix_tokens or 0, units, raised, z)
            if _close(tail.run(len(units), change).view_as(expected), expected):
                return weight.detach().float().clone()
    return None


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-4 * b.abs().max())


def writer(combine: str, pool: str, prefix: int, units: Tensor, amounts: Tensor, z: Tensor) -> Change:
    """What `Tail.run` needs to give U copies of a batch each another unit or amount.

    Args:
        combine: One of `COMBINE`.
        pool: Of the layer; it says where the unit is looked at: everywhere, at the first token, or at the patches.
        prefix: Number of tokens before the patches.
        units: (U,) indices.
        amounts: (U, 1) or (U, B), what the pooled value becomes.
        z: (B, K), what it is.
    """
    place = torch.arange(len(units), device=z.device)
    now = z[:, units].T  # (U, B)

    def change(x: Tensor) -> None:
        copies = x.unflatten(0, (len(units), len(z)))
        old = copies[place, :, units]  # (U, B, ...)
        axes = (...,) + (None,) * (old.ndim - 2)
        if combine == "set":
            copies[place, :, units] = amounts[axes].expand_as(old).to(old)
            return
        new = old + (amounts - now)[axes].to(old)
        if combine == "scale":
            ratio = amounts / now
            sound = (now != 0) & ratio.isfinite() & ((ratio >= 0) | torch.tensor(pool != "max"))
            new = torch.where(sound[axes], old * torch.where(sound, ratio, 1.0)[axes].to(old), new)
        if pool == "first":
            new = torch.cat((new[..., :1], old[..., 1:]), -1)
        elif pool == "patch":
            new = torch.cat((old[..., :prefix], new[..., prefix:]), -1)
        copies[place, :, units] = new

    return change


@dataclass(frozen=True)
class Replacement:
    """How units of one layer take other amounts, and what their loss is taken against.

    Attributes:
        target: The network.
        probe: The images.
        layer: The layer.
        pool: Its pooling.
        labels: (N,) of all images of the probe.
        temperature: Logits are divided by it.
        combine: One of `COMBINE`.
        answers: Whether to find out which answers are still right.
    """

    target: "Target"
    probe: "Probe"
    layer: str
    pool: str
    labels: Tensor
    temperature: float
    combine: str
    answers: bool = False

    def losses(self, rows: Tensor, units: Tensor, amounts: Tensor, runner: Trainer) -> "Losses":
        """Runs the pass: images `rows`, all different; units (K,) indices; amounts (n, K) of each."""
        losses = Losses(self, rows, units, amounts)
        predict(losses, runner, f"{self.target.name} with other amounts of layer {self.layer}")
        losses.gather(runner)
        return losses


class Losses:
    """Cross entropy of images with units at other amounts.

    Attributes:
        intact: (N,) float32, of the network as it is.
        right: (N,) bool, whether its largest logit is the label's.
        loss: (n, K, N) float32, with unit k at its j-th amount.
        still_right: (n, K, N) bool, or nothing unless asked for.
        partial: Whether only the network's tail was run.
    """

    def __init__(self, how: Replacement, rows: Tensor, units: Tensor, amounts: Tensor) -> None:
        self.network = how.target.module
        self.how, self.rows, self.units, self.amounts = how, rows, units, amounts
        self.tail = Tail(how.target, how.layer)
        self.place = torch.full((len(how.probe),), -1).scatter_(0, rows, torch.arange(len(rows)))
        n, K, N = *amounts.shape, len(rows)
        self.loss = torch.zeros(n, K, N)
        self.still_right = torch.zeros((n, K, N) if how.answers else 0, dtype=torch.bool)
        self.intact, self.right = torch.zeros(N), torch.zeros(N, dtype=torch.bool)
        self.partial = True

    def batches(self, rank: int, world: int) -> DataLoader:
        """Those of one process."""
        return self.how.probe.loader(self.how.target.transform, self.rows, rank=rank, world=world)

    def run(self, batch: tuple[Tensor, Tensor]) -> None:
        """Replaces all units, one batch of (images (B, ...), rows (B,))."""
        images, rows = batch
        how, tail, prefix = self.how, self.tail, self.how.target.prefix_tokens or 0
        place, y = self.place[rows.cpu()], how.labels[rows.cpu()].to(images.device)
        tail.load(images)
        z = pooled(tail.output, how.pool, prefix)
        self.intact[place], self.right[place] = self._judge(tail.logits, y)
        n, K = self.amounts.shape
        step = max(1, CHUNK_BYTES // max(1, tail.output.nbytes))
        for start in range(0, n * K, step):
            pair = torch.arange(start, min(start + step, n * K))
            j, k = pair // K, pair % K
            units, amounts = self.units[k].to(z.device), self.amounts[j, k].to(z)[:, None]
            change = writer(how.combine, how.pool, prefix, units, amounts, z)
            loss, right = self._judge(tail.run(len(pair), change).unflatten(0, (len(pair), len(y))), y)
            self.loss[j[:, None], k[:, None], place] = loss
            if how.answers:
                self.still_right[j[:, None], k[:, None], place] = right
        self.partial = self.partial and tail.partial

    def save(self) -> None:
        """Nothing is kept of an interrupted pass."""

    def gather(self, runner: Trainer) -> None:
        """Brings together what the processes found; each image was seen by one of them.

        Not at the end of the pass, which a process without any batch does not reach.
        """
        for name in ("loss", "still_right", "intact", "right"):
            setattr(self, name, total_of(getattr(self, name), runner))
        self.partial = not float(total_of(torch.tensor(float(not self.partial)), runner))

    def _judge(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (..., B) float32 and whether the largest logit is the label's, on the CPU."""
        scaled = (logits.float() / self.how.temperature).log_softmax(-1)
        own = -scaled.gather(-1, labels.expand(scaled.shape[:-1])[..., None])[..., 0]
        return own.float().cpu(), (logits.argmax(-1) == labels).cpu()


def share_of(places: Tensor, size: int) -> list[Tensor]:
    """Places, `size` at a time, that are for this process to do: they are dealt to the processes of a run in turn."""
    together = distributed.is_available() and distributed.is_initialized()
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
    return list(places.split(size))[rank::world]


def total_of(part: Tensor, runner: Trainer) -> Tensor:
    """The sum of what all processes have, of the same type, on the CPU."""
    if runner.world_size == 1:
        return part
    sent = part.float() if part.dtype == torch.bool else part
    return runner.strategy.reduce(sent.to(runner.strategy.root_device), reduce_op="sum").cpu().to(part.dtype)
