"""MILAN: sentences about what the regions share where a unit fires most.

From Python, `neuronx.milan` is this package: `neuronx.milan.pretrained("base")(images, masks).captions`.
"""

from functools import partial

from neuronx import first_used

_PUBLIC = {
    "Captions": "captioner",
    "Describer": "describer",
    "Milan": "method",
    "load": "describer",
    "pretrained": "describer",
}
__all__ = sorted(_PUBLIC)
__getattr__ = partial(first_used, __name__, _PUBLIC)
