"""Embeddings before the head: the mean over all tokens or positions of what a tower's last block puts out."""

import re
from typing import TYPE_CHECKING

from torch import Tensor, nn

from neuronx.concepts.clip import Clip
from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.types import TrainerFactory

if TYPE_CHECKING:
    from neuronx.targets.target import Target

BLOCKS = re.compile(r"(?:transformer\.resblocks|trunk\.blocks)\.(\d+)|(?:trunk\.)?layer(\d+)|(?:trunk\.)?stages\.(\d+)")


def mean_tokens(clip: Clip, probe: Probe, trainer: TrainerFactory) -> Tensor:
    """What PURE measures distances in: (N, D) float32, neither projected nor normalised.

    Of a ViT it is the mean over all tokens, the class token included, before the last normalisation; of a ResNet the
    mean over the last stage's map.

    Raises:
        UserError: A CLIP whose image tower has no such blocks, or that knows another kind of pictures.
    """
    from neuronx.recording.record import record

    if probe.domain != clip.domain:
        raise UserError(f"{clip.name} knows {clip.domain} pictures, and those of `{probe.name}` are {probe.domain}.")
    target = _before_the_head(clip)
    return record(target, probe, trainer, batch_size=clip.batch_size)[next(iter(target.layers))].values


def _before_the_head(clip: Clip) -> "Target":
    from neuronx.targets.target import Target

    encoder = clip.encoder
    visual: nn.Module = encoder.model.visual
    blocks = [name for name, _ in visual.named_modules() if BLOCKS.fullmatch(name)]
    if not blocks:
        raise UserError(f"The image tower of {clip.name} has no blocks that are known here: take tokens=false.")
    last = max(blocks, key=lambda name: int(re.findall(r"\d+", name)[-1]))
    return Target(
        name=f"{clip.name}-tokens",
        module=visual.eval(),
        transform=encoder.transform,
        layers={last: "avg"},
        digest=encoder.identity,
    )
