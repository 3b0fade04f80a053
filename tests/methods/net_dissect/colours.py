"""A network whose units see colours, and the same as a process of its own: colours.py DEVICES FOLDER."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from neuronx.methods.net_dissect.compositional import Compositional
from neuronx.methods.net_dissect.method import NetDissect
from neuronx.recording.trainer import make
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.world.pictures.probe import ShapesProbe


class Colours(nn.Module):
    """Unit 0 sees what is red, 1 green, 2 blue, each as a map; 3 sees nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.head = nn.Identity(), nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        red, green, blue = images.unbind(1)
        most = [(red, green, blue, 0.3), (green, red, blue, 0.1), (blue, red, green, 0.1)]
        maps = [torch.relu(one - torch.maximum(a, b) - least) for one, a, b, least in most]
        return self.head(self.maps(torch.stack([*maps, 0 * red], 1)).mean((2, 3)))


def target(layer: str = "maps", units: dict[str, list[int]] | None = None) -> Target:
    return Target("colours", Colours(), Preprocess(), {layer: "avg" if layer == "maps" else "none"}, units=units)


if __name__ == "__main__":
    torch.set_num_threads(1)
    devices, folder = int(sys.argv[1]), Path(sys.argv[2])
    strategy = "ddp" if devices > 1 else "auto"
    trainer = partial(make, accelerator="cpu", devices=devices, strategy=strategy, enable_progress_bar=False)
    probe = ShapesProbe(126, batch_size=7)  # 100 and one train and val images, in 15 batches
    found = {}
    for method in (NetDissect(quantile=0.5), Compositional(quantile=0.5, beam=3)):
        explanations = method.explain(target(), probe, trainer).explanations
        found[type(method).__name__] = [[str(explanation), explanation.notes] for explanation in explanations]
    (tally, _), *_ = NetDissect(quantile=0.5).dissect(target(), probe, trainer).values()
    found["both"], found["cells"] = tally.both.tolist(), tally.cells
    rank = int(os.environ.get("LOCAL_RANK", 0))
    (folder / f"{devices}-{rank}.json").write_text(json.dumps(found))
