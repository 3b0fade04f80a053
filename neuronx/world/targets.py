"""The embedded world's own networks under study, rebuilt from their cards."""

from pathlib import Path
from typing import Any

from neuronx.errors import UserError
from neuronx.store.checkpoints import find, read
from neuronx.targets.custom import target
from neuronx.targets.layers import Layers
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.world.networks import NETWORKS

SIDE = 64
"""Of the pictures that these networks take."""


def load(
    checkpoint: str | Path, layers: Layers | None = None, pool: str = "avg", name: str | None = None, **options: Any
) -> Target:
    """Makes a target of a classifier of the embedded world.

    Args:
        checkpoint: Name of a shipped one (shapes_resnet, shapes_vit), or a safetensors file with its card beside it, as
            `train.py classifier=` writes them.
        layers: Asked for: one, several, or layer -> pooling; by default those of the card.
        pool: For layers without a pooling of their own.
        name: In tables; by default that of the file.
        options: `dictionary`, `dictionary_layer` and what else `neuronx.targets.custom.target` takes.

    Raises:
        UserError: No such file or name, or one that is no classifier.
    """
    state, card = read(checkpoint)
    path = find(checkpoint)
    if card.get("network") not in NETWORKS:
        raise UserError(f"The card of {path} names no network of {', '.join(NETWORKS)}; is it a classifier?")
    module = NETWORKS[card["network"]](len(card["classes"]))
    module.load_state_dict(state)
    return target(
        name or path.stem,
        module,
        Preprocess(mean=card["mean"], std=card["std"]),
        card["layers"] if layers is None else layers,
        pool,
        card["classes"],
        input_size=SIDE,
        **options,
    )
