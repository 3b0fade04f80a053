import numpy as np
import pytest

from neuronx import milannotations

SAID = {
    "alexnet": "red circles",
    "resnet152": "green squares",
    "biggan": "blue stars",
    "imagenet": "on grass",
    "places365": "in the sky at night",
}


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """Two layers of three units of each of six models, described by what the model is called."""
    root = tmp_path_factory.mktemp("annotations")
    for network in ("alexnet", "resnet152", "biggan"):
        for data in ("imagenet", "places365"):
            folder = root / network / data
            lines = ["layer,unit,summary"]
            for layer in ("conv1", "conv2"):
                (folder / layer).mkdir(parents=True)
                for name, channels in (("images", 3), ("masks", 1)):
                    np.save(folder / layer / f"{name}.npy", np.zeros((3, 2, channels, 4, 4), dtype=np.uint8))
                lines += [f"{layer},{u},{SAID[network]} {SAID[data]}" for u in range(3) for _ in range(3)]
            (folder / "annotations.csv").write_text("\n".join(lines) + "\n")
    return milannotations.load("base", root)
