"""Which output of a network the label of each picture is: classes are matched by name, or refused."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.concepts.labels import spoken
from neuronx.errors import UserError

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


def class_labels(target: "Target", probe: "Probe", outputs: int | None = None) -> Tensor:
    """The label of every picture as the number of the network's output for it.

    Where both say the names of their classes, these decide: pictures may have the classes in another order, or only
    some of them. Where one does not, the pictures must count as many classes as the network has outputs.

    Args:
        target: A classifier.
        probe: Pictures with labels.
        outputs: How many outputs the network has, where that is known; as many as it has names of classes otherwise.

    Returns:
        (N,) int64, of all pictures of the probe.

    Raises:
        UserError: Pictures without labels, or of other classes than the network's.
    """
    outputs = outputs or len(target.class_names) or None
    if probe.labels is None:
        raise UserError(f"`{probe.name}` has no labels: give pictures that are labelled with {target.name}'s classes.")
    labels = probe.labels
    own, theirs = ([spoken(name) for name in names] for names in (target.class_names, probe.class_names))
    if own and theirs and own != theirs:
        if strange := [name for name, key in zip(probe.class_names, theirs, strict=True) if key not in own]:
            raise UserError(
                f"`{probe.name}` shows {len(strange)} of {len(theirs)} classes that {target.name} does not know: "
                f"{', '.join(strange[:3])}{', ...' if len(strange) > 3 else ''}; its classes are "
                f"{', '.join(target.class_names[:3])}{', ...' if len(own) > 3 else ''}. Where the classes are the same "
                "and only their names differ, give data.class_names=FILE with the network's names in their order."
            )
        place = torch.tensor([own.index(key) for key in theirs])
        return torch.where(labels >= 0, place[labels.clamp(min=0)], labels)
    found = len(theirs) or int(labels.max()) + 1
    if outputs is not None and (int(labels.max()) >= outputs or (theirs and found != outputs)):
        raise UserError(
            f"{target.name} tells {outputs} classes apart, `{probe.name}` is labelled with {found}: give pictures with "
            "the network's own classes as labels."
        )
    return labels
