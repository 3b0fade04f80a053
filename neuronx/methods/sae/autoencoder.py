"""The sparse autoencoder and how it learns, as a LightningModule.

    x' = (x - mean) / scale                      centred and scaled to a mean square of 1 a unit
    e  = W_enc (x' - b_dec) + b_enc              (M,)
    z  = sparse(relu(e))
    x^ = W_dec z + b_dec

`topk` keeps the k largest latents of each row. `batchtopk` keeps the k n largest of a batch of n rows; afterwards those
above a threshold, the mean of the smallest that were kept. `matryoshka` does the same, and every prefix of the
dictionary must reconstruct alone. `relu` keeps all and pays for their sum. Latents that have not fired for long
reconstruct what is left over (AuxK).
Sources: Gao et al., *Scaling and evaluating sparse autoencoders*, 2024; Bussmann et al., *BatchTopK* (2024) and
*Matryoshka sparse autoencoders* (2025).
"""

from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.options import Count, NotNegative, Positive
from neuronx.recording.fit import read_checkpoint

KINDS = ("topk", "batchtopk", "matryoshka", "relu")
FALL = 0.2
"""Share of the steps, at the end, over which the learning rate falls to 0."""


class SparseAutoencoder(LightningModule):
    """Learns to write rows (n, D) as sparse sums of M directions of length 1.

    Args:
        units: D.
        latents: M.
        kind: One of `KINDS`.
        k: Latents of a row; not for relu.
        l1: Weight of the sum of latents, for relu.
        aux: Weight of the loss of dead latents.
        dead_after: Rows after which a latent that has not fired is dead.
        prefixes: How many prefixes of the dictionary reconstruct alone, each half as long as the next; for matryoshka.
        frozen: Leaves the decoder's random directions as they are: a baseline.
        lr: Learning rate of Adam.
    """

    mean: Tensor
    scale: Tensor
    idle: Tensor
    threshold: Tensor

    def __init__(
        self,
        units: Count,
        latents: Count,
        kind: str = "topk",
        k: Count = 16,
        l1: NotNegative = 0.0,
        aux: NotNegative = 1 / 32,
        dead_after: Count = 20_000,
        prefixes: Count = 1,
        frozen: bool = False,
        lr: Positive = 3e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.kind, self.k, self.l1, self.aux, self.dead_after, self.lr = kind, k, l1, aux, dead_after, lr
        self.sizes = [latents >> halvings for halvings in reversed(range(prefixes)) if latents >> halvings]
        self.decoder = nn.Parameter(F.normalize(torch.randn(latents, units)), requires_grad=not frozen)
        self.encoder = nn.Parameter(self.decoder.detach().clone())
        self.encoder_bias = nn.Parameter(torch.zeros(latents))
        self.decoder_bias = nn.Parameter(torch.zeros(units))
        self.register_buffer("mean", torch.zeros(units))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("idle", torch.zeros(latents, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(()))

    def standardise(self, rows: Tensor, pictures: Tensor) -> None:
        """Takes the mean of the rows (N, P, D) of some pictures, and the scale that gives a mean square of 1 a unit."""
        count, parts = len(pictures) * rows.shape[1], pictures.split(1024)
        self.mean.copy_(torch.stack([rows[part].double().sum((0, 1)) for part in parts]).sum(0) / count)
        squares = sum((rows[part].double() - self.mean).square().sum().item() for part in parts)
        self.scale.fill_((squares / (count * rows.shape[2])) ** 0.5 or 1.0)

    def sparse(self, dense: Tensor) -> Tensor:
        """Latents (n, M) with those that do not count at 0; while it learns, `batchtopk` looks at the whole batch."""
        if self.kind == "relu":
            return dense
        if self.kind == "topk":
            largest, places = dense.topk(self.k)
            return torch.zeros_like(dense).scatter(-1, places, largest)
        if not self.training:
            return dense * (dense > self.threshold)
        smallest = dense.flatten().topk(self.k * len(dense)).values[-1].detach()
        return dense * (dense >= smallest.clamp(min=1e-12))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (n, D): the rows standardised (n, D), and the latents (n, M)."""
        x = (rows - self.mean) / self.scale
        dense = F.linear(x - self.decoder_bias, self.encoder, self.encoder_bias).relu()
        return x, self.sparse(dense)

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        """Loss of rows (n, D)."""
        x, latents = self(batch)
        losses = []
        for size in self.sizes:
            errors = x - self.decoder_bias - latents[:, :size] @ self.decoder[:size]
            losses.append(errors.square().mean())
        loss = torch.stack(losses).mean()
        fired = self._everywhere((latents.detach() > 0).any(0).float(), "sum") > 0
        self.idle.add_(len(batch) * self.trainer.world_size).masked_fill_(fired, 0)
        if self.kind in ("batchtopk", "matryoshka"):
            self._follow(latents.detach())
        dead = self.idle > self.dead_after
        if self.aux and bool(dead.any()):
            loss = loss + self.aux * self._auxiliary(errors.detach(), x, dead)
        if self.l1:
            loss = loss + self.l1 * latents.sum(1).mean()
        unexplained = errors.detach().square().sum() / x.square().sum()
        shown = {"train/explained": 1 - unexplained, "train/l0": (latents > 0).float().sum(1).mean()}
        self.log_dict(shown | {"train/dead": dead.float().mean()}, prog_bar=True)
        return loss

    def _auxiliary(self, errors: Tensor, x: Tensor, dead: Tensor) -> Tensor:
        """How badly the dead latents, half as many as there are units at most, reconstruct the errors of the others."""
        e = F.linear(x - self.decoder_bias, self.encoder[dead], self.encoder_bias[dead])
        largest, places = e.topk(min(len(self.mean) // 2 or 1, e.shape[1]))
        latents = torch.zeros_like(e).scatter(-1, places, largest.relu())
        left = (errors - latents @ self.decoder[dead]).square().mean() / errors.square().mean().clamp(min=1e-12)
        return left.nan_to_num(0.0)

    def _follow(self, latents: Tensor) -> None:
        """Moves the threshold towards the smallest latent that counted in this batch."""
        smallest = latents.masked_fill(latents <= 0, torch.inf).amin().nan_to_num(posinf=0.0).float()
        smallest = self._everywhere(smallest, "mean")
        self.threshold.copy_(smallest if not bool(self.threshold) else self.threshold.lerp(smallest, 0.01))

    def _everywhere(self, value: Tensor, how: str) -> Tensor:
        """A value of this process brought together with those of the others."""
        return self.trainer.strategy.reduce(value, reduce_op=how) if self.trainer.world_size > 1 else value

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        """Gives the directions length 1 again."""
        if self.decoder.requires_grad:
            self.decoder.copy_(F.normalize(self.decoder))

    def configure_optimizers(self) -> Any:
        """Adam; the rate falls to 0 over the last steps. Raises UserError for a checkpoint of a run of other steps."""
        optimizer = torch.optim.Adam([p for p in self.parameters() if p.requires_grad], self.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        if self.trainer.ckpt_path is not None:
            planned = read_checkpoint(str(self.trainer.ckpt_path))["hyper_parameters"].get("steps")
            if planned != steps:
                raise UserError(
                    f"The checkpoint {self.trainer.ckpt_path} is of a run of {planned} steps, this one has {steps}; "
                    "go on with the same epochs, steps and devices."
                )
        self.hparams["steps"] = steps

        def share(step: int) -> float:
            return min(1.0, (steps - step) / max(1.0, FALL * steps))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """The weights for raw rows, in SAELens' names: latents are in the units of the layer.

        W_enc (D, M), b_enc (M,), W_dec (M, D), b_dec (D,); and threshold (M,) of batchtopk and matryoshka. Latents are
        relu((x - b_dec) W_enc + b_enc) before they are made sparse.
        """
        state = {
            "W_enc": self.encoder.T.contiguous(),
            "b_enc": self.encoder_bias * self.scale,
            "W_dec": self.decoder.clone(),
            "b_dec": self.mean + self.scale * self.decoder_bias,
        }
        if self.kind in ("batchtopk", "matryoshka"):
            state["threshold"] = (self.threshold * self.scale).expand(len(self.encoder)).clone()
        return {name: value.detach().cpu().float() for name, value in state.items()}
