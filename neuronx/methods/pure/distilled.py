"""The distilled gate: which part an image belongs to, told from the lower layer's activations alone, without gradients.

A multinomial logistic regression for each split unit, from what the lower layer does on an image (means over positions,
divided by their sum of absolute values) to the part that the circuit says.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Logistic:
    """The regressions of S units, on features that are standardised first.

    Attributes:
        mean: (C',) of the features.
        scale: (C',) their standard deviations.
        weight: (S, k, C') float32.
        bias: (S, k) float32; minus infinity where a unit has fewer parts.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def parts(self, lower: Tensor) -> Tensor:
        """From the lower layer's pooled activations (N, C') to the part of each unit: (N, S) int64."""
        x = (normalised(lower) - self.mean) / self.scale
        return (torch.einsum("nc,skc->nsk", x, self.weight) + self.bias).argmax(2)


def normalised(lower: Tensor) -> Tensor:
    """Pooled activations (N, C') divided by their sum of absolute values."""
    return lower / (lower.abs().sum(1, keepdim=True) + 1e-10)


def fit(lower: Tensor, labels: Tensor, there: Tensor, *, penalty: float = 1e-3, steps: int = 200) -> Logistic:
    """Fits all units at once: the mean log loss of each plus `penalty` times half its squared weights, by L-BFGS.

    Args:
        lower: (N, C') pooled activations of the lower layer.
        labels: (N, S) int64, the part that each image belongs to; -1 for images that do not count.
        there: (S, k) bool, which parts a unit has.
        penalty: Of the weights.
        steps: At most.
    """
    x = normalised(lower)
    mean, scale = x.mean(0), x.std(0).clamp(min=1e-12)
    x = (x - mean) / scale
    shape = len(there), there.shape[1]
    weight = torch.zeros(*shape, x.shape[1], device=x.device, requires_grad=True)
    bias = torch.zeros(shape, device=x.device, requires_grad=True)
    none = torch.zeros(shape, device=x.device).masked_fill(~there, -torch.inf)
    counted = (labels >= 0).float()
    share = counted / counted.sum(0).clamp(min=1)
    solver = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-6)

    def loss() -> Tensor:
        solver.zero_grad()
        logits = torch.einsum("nc,skc->nsk", x, weight) + (bias + none)
        log = -F.log_softmax(logits, 2).gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0]
        value = (log * share).sum() + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.inference_mode(False), torch.enable_grad():
        solver.step(loss)
    return Logistic(mean, scale, weight.detach(), bias.detach() + none)
