"""Preprocessing by name: what the usual networks were trained on."""

from collections.abc import Mapping
from typing import Any

from neuronx.errors import UserError, unknown
from neuronx.targets.inputs.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

TRANSFORMS = {
    # The usual evaluation transform of ImageNet and Places365 networks.
    "imagenet": Preprocess(resize=256, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    # The widespread CIFAR-10 ResNets (20, 32, 44, 56, 110) were trained with ImageNet's statistics.
    "cifar10": Preprocess(resize=(32, 32), mean=IMAGENET_MEAN, std=IMAGENET_STD),
    # CIFAR-10's own statistics.
    "cifar10_own": Preprocess(resize=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    # As the networks of chenyaofo/pytorch-cifar-models for CIFAR-100.
    "cifar100": Preprocess(resize=(32, 32), mean=(0.5070, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2761)),
    # SqueezeNet as first published: RGB in 0..255 minus (123, 117, 104), not scaled.
    "squeezenet": Preprocess(
        resize=(256, 256), crop=227, mean=(123 / 255, 117 / 255, 104 / 255), std=(1 / 255, 1 / 255, 1 / 255)
    ),
    # Pictures as they are, in [0, 1].
    "none": Preprocess(),
}


def transform_of(wanted: str | Mapping[str, Any] | Any) -> Any:
    """A transform from its name, from the fields of a `Preprocess`, or from itself.

    Raises:
        UserError: An unknown name or field.
    """
    if isinstance(wanted, str):
        if wanted not in TRANSFORMS:
            raise unknown(
                "transform",
                wanted,
                TRANSFORMS,
                "Or give the fields: {resize: 256, crop: 224, mean: [...], std: [...]}.",
            )
        return TRANSFORMS[wanted]
    if isinstance(wanted, Mapping):
        fields = Preprocess.__dataclass_fields__
        for name in wanted:
            if name not in fields:
                raise unknown("field of a transform", str(name), fields)
        return Preprocess(**wanted)
    if not callable(wanted):
        raise UserError(f"transform={wanted!r} is neither a name nor the fields of a transform.")
    return wanted
