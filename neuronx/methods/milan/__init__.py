"""MILAN: sentences about what the regions share where a unit fires most.

From Python, `neuronx.milan` is this package: `neuronx.milan.pretrained("base")(images, masks).captions`.
"""

from typing import Any

from neuronx import first_used

_PUBLIC = {
    "Captions": "captioner",
    "Describer": "describer",
    "Milan": "method",
    "load": "describer",
    "pretrained": "describer",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    return first_used(__name__, _PUBLIC, name)
