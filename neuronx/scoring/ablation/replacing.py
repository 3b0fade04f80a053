"""One unit after the other takes other amounts, and the rest of the network runs: the loss of every image.

An amount is a value of the pooled activation. It gets into a map, or among tokens, in one of three ways (`COMBINE`).
"""

from typing import TYPE_CHECKING

import torch
from lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from neuronx.recording.forward_pass import predict
from neuronx.recording.maps import pooled
from neuronx.targets.replay import Change, Tail
from neuronx.types import TrainerFactory

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy

    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

COMBINE = ("shift", "scale", "set")
"""`shift` adds the same everywhere that the pooling looks; `scale` multiplies there, and shifts where the pooled value
is 0 (or would change its sign under a maximum); `set` puts the amount into every place and token."""

CHUNK_BYTES = 8 * 2**20
"""Of the layer's output, for all copies of a batch that run together."""


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


class Losses(LightningModule):
    """Cross entropy of images with units at other amounts: `predict(losses, runner)`, then read the attributes.

    Attributes:
        intact: (N,) float32, of the network as it is.
        right: (N,) bool, whether its largest logit is the label's.
        loss: (n, K, N) float32, with unit k at its j-th amount.
        still_right: (n, K, N) bool, or nothing unless asked for.
        partial: Whether only the network's tail was run.
    """

    def __init__(
        self,
        target: "Target",
        probe: "Probe",
        layer: str,
        pool: str,
        rows: Tensor,
        labels: Tensor,
        units: Tensor,
        amounts: Tensor,
        *,
        combine: str = "shift",
        temperature: float = 1.0,
        answers: bool = False,
        batch_size: int | None = None,
    ) -> None:
        """Takes what is to be replaced.

        Args:
            target: The network.
            probe: The images.
            layer: Where the units are.
            pool: Its pooling.
            rows: (N,) the images to look at, all different.
            labels: Of all images of the probe.
            units: (K,) indices.
            amounts: (n, K) float.
            combine: One of `COMBINE`.
            temperature: Logits are divided by it.
            answers: Whether to fill `still_right`.
            batch_size: Images at a time; the probe's own by default.
        """
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.network = target.module
        self.target, self.probe, self.pool, self.rows = target, probe, pool, rows
        self.labels, self.units, self.amounts = labels, units, amounts
        self.combine, self.temperature, self.answers = combine, temperature, answers
        self.batch_size = batch_size
        self.tail = Tail(target, layer)
        self.place = torch.full((len(probe),), -1).scatter_(0, rows, torch.arange(len(rows)))
        n, K, N = *amounts.shape, len(rows)
        self.loss = torch.zeros(n, K, N)
        self.still_right = torch.zeros((n, K, N) if answers else 0, dtype=torch.bool)
        self.intact, self.right = torch.zeros(N), torch.zeros(N, dtype=torch.bool)
        self.partial = True

    def predict_dataloader(self) -> DataLoader:
        """The batches of this process."""
        return self.probe.loader(
            self.target.transform,
            self.rows,
            batch_size=self.batch_size,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Replaces all units, one batch of (images (B, ...), rows (B,)); returns the rows."""
        images, rows = batch
        place, y, tail = self.place[rows.cpu()], self.labels[rows.cpu()].to(self.device), self.tail
        tail.load(images)
        z = pooled(tail.output, self.pool, self.target.prefix_tokens or 0)
        self.intact[place], self.right[place] = self._judge(tail.logits, y)
        n, K = self.amounts.shape
        step = max(1, CHUNK_BYTES // max(1, tail.output.nbytes))
        for start in range(0, n * K, step):
            pair = torch.arange(start, min(start + step, n * K))
            j, k = pair // K, pair % K
            units, amounts = self.units[k].to(z.device), self.amounts[j, k].to(z)[:, None]
            change = writer(self.combine, self.pool, self.target.prefix_tokens or 0, units, amounts, z)
            loss, right = self._judge(tail.run(len(pair), change).unflatten(0, (len(pair), len(y))), y)
            self.loss[j[:, None], k[:, None], place] = loss
            if self.answers:
                self.still_right[j[:, None], k[:, None], place] = right
        self.partial = self.partial and tail.partial
        if self.trainer.received_sigterm:
            raise SystemExit(143)
        return rows

    def gather(self, strategy: "Strategy") -> None:
        """Brings together what the processes found; each image was seen by one of them.

        Not at the end of the pass, which a process without any batch does not reach.
        """
        device = strategy.root_device
        for name in ("loss", "still_right", "intact", "right"):
            mine = getattr(self, name)
            total = strategy.reduce(mine.float().to(device), reduce_op="sum").cpu()
            setattr(self, name, total.to(mine.dtype))
        whole = torch.tensor(float(not self.partial), device=device)
        self.partial = not float(strategy.reduce(whole, reduce_op="sum"))

    def _judge(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (..., B) float32 and whether the largest logit is the label's, on the CPU."""
        scaled = (logits.float() / self.temperature).log_softmax(-1)
        own = -scaled.gather(-1, labels.expand(scaled.shape[:-1])[..., None])[..., 0]
        return own.float().cpu(), (logits.argmax(-1) == labels).cpu()


def losses(trainer: TrainerFactory, task: Losses) -> Losses:
    """Runs the pass and returns it."""
    runner = trainer()
    predict(task, runner)
    if runner.world_size > 1:
        task.gather(runner.strategy)
    return task
