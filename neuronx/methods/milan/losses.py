"""What the captioner's two models learn by, as published (Hernandez et al., 2022)."""

from torch import Tensor
from torch.nn import functional as F

from neuronx.methods.milan.decoder import Decoder
from neuronx.methods.milan.language_model import LanguageModel


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
