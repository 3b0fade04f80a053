"""MILAN from Python: `neuronx.milan.pretrained("base")(images, masks).captions`."""

from neuronx.methods.milan.captioner import Captions
from neuronx.methods.milan.describer import Describer, load, pretrained
from neuronx.methods.milan.method import Milan

__all__ = ["Captions", "Describer", "Milan", "load", "pretrained"]
