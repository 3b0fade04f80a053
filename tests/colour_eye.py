"""A stand-in for a CLIP whose every answer is known: it sees colours."""

import torch
from torch import nn

from neuronx.types import Judgement

COLOURS = ("red", "green", "blue")


class Eye:
    """A CLIP that sees the mean colour of a picture, and knows three words."""

    name, domain, encoders = "eye", "", ("digest of eye",)

    def colours(self, probe):
        return torch.cat([probe.load([row]).float().mean((2, 3)) / 255 for row in range(len(probe))])

    def embed_images(self, probe, trainer):
        return nn.functional.normalize(self.colours(probe), dim=1)

    def embed_texts(self, texts):
        return torch.eye(3)[[COLOURS.index(text) for text in texts]]

    def vocabulary(self, probe):
        return COLOURS

    def judge(self, names, probe, trainer):
        seen = self.colours(probe)[:, [COLOURS.index(name) for name in names]]
        return Judgement(torch.ones(len(names), dtype=torch.bool), lambda rows: seen[rows])
