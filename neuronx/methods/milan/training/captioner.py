"""The captioner's two models as Lightning modules, fitted until held-out units say that it is enough.

The losses, the optimiser and the rules for stopping are those of MILAN (Hernandez et al., 2022).
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.methods.milan.captioner import Captioner
from neuronx.methods.milan.networks import Decoder, LanguageModel
from neuronx.methods.milan.training.descriptions import Batch, Descriptions
from neuronx.metrics.captions import normalised
from neuronx.recording.fit import fit_module
from neuronx.types import TrainerFactory

SAMPLES = 16
"""Held-out units whose captions are shown in every epoch."""


class Learning(LightningModule):
    """Base of both models' training: AdamW, and the held-out loss over all words of all held-out captions.

    Args:
        model: What learns.
        lr: Learning rate.
        seed: Of the dropout, together with epoch and process.
    """

    def __init__(self, model: torch.nn.Module, lr: float, seed: int) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.model: Any = model
        self.lr, self.seed = lr, seed
        self.sums = torch.zeros(2)

    name: str

    def loss(self, batch: Batch) -> Tensor:
        """What these captions add to the loss of the whole batch."""
        raise NotImplementedError

    def measured(self, batch: Batch) -> Tensor:
        """Mean of -log p over the words of held-out captions."""
        raise NotImplementedError

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Begins the dropout's chance anew, so that a resumed run goes on as an undisturbed one."""
        torch.manual_seed(((self.seed * 1_000_003 + self.global_step) * 1009 + self.global_rank) % 2**31)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The loss, whose mean over processes is that of the whole batch."""
        loss = self.loss(batch) * self.trainer.world_size
        self._log("train_loss", loss, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begins to count."""
        self.sums = torch.zeros(2, dtype=torch.float64)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Adds to the held-out loss."""
        if len(batch.targets):
            words = int((batch.targets != self.model.specials.pad).sum())
            self.sums += torch.tensor([float(self.measured(batch)) * words, words], dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        """Logs the held-out loss of all processes."""
        total: Any = self.trainer.strategy.reduce(self.sums.float().to(self.device), reduce_op="sum")
        self._log("val_loss", total[0] / total[1])

    def _log(self, what: str, value: Tensor, **options: Any) -> None:
        self.log(f"{self.name}/{what}", value, prog_bar=True, sync_dist=True, **options)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW with torch's defaults, as published; fused, which computes the same faster."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr, fused=self.device.type in ("cpu", "cuda"))


class DecoderLearning(Learning):
    """The decoder; in every epoch it captions the held-out units greedily, and BLEU says how well.

    `captions` holds the latest captions of some of them, (unit, caption), and `units` the annotated units, where known.

    Args:
        captioner: With the decoder and the vocabulary, without a language model.
        said: What was said of each unit.
        lr: Learning rate.
        seed: Of the dropout.
        regularization: Weight of the regulariser of the attention.
    """

    name = "decoder"

    def __init__(
        self, captioner: Captioner, said: Any, lr: float = 1e-3, seed: int = 0, regularization: float = 1.0
    ) -> None:
        from torchmetrics.text import SacreBLEUScore

        super().__init__(captioner.decoder, lr, seed)
        # In a tuple, so that it is no submodule: its parameters are those of the decoder.
        self.writers = (captioner,)
        self.said, self.regularization = said, regularization
        self.bleu: Any = SacreBLEUScore(lowercase=True)
        self.captions: list[tuple[int, str]] = []
        self.units: Any = None

    def loss(self, batch: Batch) -> Tensor:
        """-log p of the words, and the attention's regulariser, as published."""
        regularization = self.regularization * batch.captions / batch.words
        return decoder_loss(self.model, batch.features, batch.targets, batch.unit, regularization) * batch.words

    def measured(self, batch: Batch) -> Tensor:
        """Without the regulariser."""
        return decoder_loss(self.model, batch.features, batch.targets, batch.unit, 0)

    def on_validation_epoch_start(self) -> None:
        """Begins to count."""
        super().on_validation_epoch_start()
        self.captions = []

    def validation_step(self, batch: Batch, number: int) -> None:
        """Captions the units too."""
        super().validation_step(batch, number)
        if not len(batch.units):
            return
        captions = self.writers[0](batch.features.float(), "greedy", pmi=False).captions
        units = batch.units.tolist()
        self.bleu.update([*map(normalised, captions)], [[*map(normalised, self.said[unit])] for unit in units])
        self.captions += list(zip(units, captions, strict=True))[: SAMPLES - len(self.captions)]

    def on_validation_epoch_end(self) -> None:
        """Logs the corpus BLEU of the captions, in [0, 1], beside the loss."""
        super().on_validation_epoch_end()
        self._log("val_bleu", self.bleu.compute())
        self.bleu.reset()


class LanguageModelLearning(Learning):
    """The language model, which sees descriptions only."""

    name = "language_model"

    def __init__(self, language_model: LanguageModel, lr: float = 1e-3, seed: int = 0) -> None:
        super().__init__(language_model, lr, seed)

    def loss(self, batch: Batch) -> Tensor:
        """-log p of the words."""
        return self.measured(batch) * batch.words

    def measured(self, batch: Batch) -> Tensor:
        """Mean of -log p."""
        return language_model_loss(self.model, batch.targets)


def decoder_loss(
    decoder: Decoder, features: Tensor, targets: Tensor, unit: Tensor | None = None, regularization: float = 1.0
) -> Tensor:
    """Mean of -log p over the targets that are no pads, plus the weighted regulariser of the attention.

    Args:
        decoder: In training mode, or not to measure.
        features: (U, k, D).
        targets: (B, T) int64 captions with stops and pads, as `Vocabulary.index` gives them.
        unit: (B,) int64, the unit that each caption is about; caption i is about unit i when None. Captions of one unit
            share the work on its features.
        regularization: Weight of `uneven_attention`; 0 for the loss on held-out captions.
    """
    outputs, attention = decoder(features, targets, unit)
    loss = _nll(decoder, outputs, targets)
    return loss + regularization * uneven_attention(attention) if regularization else loss


def language_model_loss(language_model: LanguageModel, targets: Tensor) -> Tensor:
    """Mean of -log p over the targets (B, T) that are no pads."""
    return _nll(language_model, language_model(targets), targets)


def uneven_attention(attention: Tensor) -> Tensor:
    """How far each exemplar's attention (B, T, k) is from summing to 1 over a caption: the mean squared difference.

    All T steps count, those after the stop too, as published.
    """
    return (1 - attention.sum(1)).square().mean()


def _nll(model: Decoder | LanguageModel, outputs: Tensor, targets: Tensor) -> Tensor:
    words = targets != model.specials.pad
    return F.cross_entropy(model.predict(outputs[words]), targets[words])


class BestWeights(Callback):
    """Ends a fit that no longer gets better, and gives the module the weights of its best epoch back.

    The weights are kept in every checkpoint, so that a resumed run still has them.

    Args:
        monitor: The logged metric.
        higher: Whether more of it is better.
        patience: Ends after more than so many epochs in a row without a better one.
    """

    def __init__(self, monitor: str, higher: bool, patience: int) -> None:
        self.monitor, self.sign, self.patience = monitor, 1 if higher else -1, patience
        self.score, self.epoch, self.waited = float("-inf"), -1, 0
        self.weights: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Does not go on with a run that had come to its end."""
        trainer.should_stop = trainer.should_stop or self.waited > self.patience

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares the epoch with the best one."""
        if trainer.sanity_checking:
            return
        score = self.sign * float(trainer.callback_metrics[self.monitor])
        if score > self.score:
            self.score, self.epoch, self.waited = score, trainer.current_epoch, 0
            self.weights = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}
        else:
            self.waited += 1
            trainer.should_stop = trainer.should_stop or self.waited > self.patience

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the best weights back."""
        if self.weights:
            pl_module.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"score": self.score, "epoch": self.epoch, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As it was."""
        self.score, self.epoch, self.waited = (state_dict[name] for name in ("score", "epoch", "waited"))
        self.weights = state_dict["weights"]


def learn(
    module: Learning,
    data: Descriptions,
    trainer: TrainerFactory,
    folder: Path,
    stop: str = "loss",
    epochs: int = 100,
    patience: int = 4,
    ckpt_path: str | Path | None = None,
) -> dict[str, Any]:
    """Fits one of the models; afterwards it has the weights of its best epoch.

    `folder/<name>.ckpt`, called after the module, is written at the end of every epoch; a run resumed from it ends as
    the undisturbed run would.

    Args:
        module: What learns.
        data: What it learns from.
        trainer: `trainer.max_epochs=n` typed by the user goes before `epochs`.
        folder: Of the run.
        stop: What says when it is enough: the held-out `loss`, or `bleu`.
        epochs: At most.
        patience: As in `BestWeights`.
        ckpt_path: A checkpoint to go on from.

    Returns:
        Facts for the card.

    Raises:
        UserError: The checkpoint is missing, is not one of plain numbers, or belongs to another network; or no epoch
            gave a finite metric.
    """
    best = BestWeights(f"{module.name}/val_{stop}", stop == "bleu", patience)
    with torch.random.fork_rng(), warnings.catch_warnings():
        for advice in ("The dirpath has changed", "The number of training batches"):
            warnings.filterwarnings("ignore", f".*{advice}.*")
        runner, costs = fit_module(
            module, data, trainer, epochs, folder, module.name, ckpt_path, [best], num_sanity_val_steps=0
        )
    module.cpu()
    if not best.weights:
        raise UserError(f"The {module.name} learned nothing: {best.monitor} was never a number; lower milan.lr.")
    return {
        "epochs": runner.current_epoch,
        "best epoch": best.epoch,
        f"held-out {stop}": round(best.sign * best.score, 4),
        "steps": runner.global_step,
        "batch size": data.batch_size,
        "learning rate": module.lr,
        "seed": module.seed,
        **costs,
    }
