import json
from functools import partial

import numpy as np
import pytest
import torch
from captioning import SMALL
from model_folders import make_layer, make_table

from neuronx import checkpoints, milannotations
from neuronx.errors import UserError
from neuronx.experiments.decoding import COLUMNS, Sweep
from neuronx.experiments.given import Given
from neuronx.methods.milan import describer
from neuronx.methods.milan.training.annotations import PublishedAnnotations
from neuronx.methods.milan.training.milan import MilanTask
from neuronx.tables.csv import read_csv, write_csv
from neuronx.world.annotations.embedded import leading_factors


class Known(PublishedAnnotations):
    """Units of which a `truth.csv` says what they answer to."""

    def truth(self, units):
        return leading_factors(units)


COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def root(tmp_path):
    """Units that fire on one colour each, and a table of what is true of them."""
    folder = tmp_path / "data/net/colours"
    pixels, masks = make_layer(folder / "a", 60, side=16)
    said, truth = [], []
    for unit in range(60):
        name, colour = list(COLOURS.items())[unit % 3]
        pixels[unit] = torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].numpy()
        said += [("a", unit, text.format(name)) for text in ("{} things", "things that are {}", "the colour {}")]
        truth.append(("a", unit, name, 0.9, 5.0, name, "known"))
    torch.manual_seed(0)
    masks[:] = 1
    for name, array in (("images", pixels), ("masks", masks)):
        np.save(folder / "a" / f"{name}.npy", array)
    make_table(folder, said)
    write_csv(folder / "truth.csv", ("layer", "unit", "factor", "share", "lift", "named", "source"), truth)
    return tmp_path / "data"


def task(root, **options):
    given = {
        "name": "milan_small",
        "annotations": "net/colours",
        "source": Known(root, domain="shapes", encoder="shapes_explainer"),
        "epochs": 3,
    }
    return MilanTask(**{**SMALL, **given, **options})


def test_a_captioner_is_trained_measured_and_read_again(root, tmp_path, trainer):
    path = task(root).run(trainer, tmp_path / "run")
    _, card = checkpoints.read(path)
    assert card["figures"]["units never seen"] == card["figures"]["units of known meaning"] == 6
    assert {f"names the meaning, {way}" for way in ("rerank", "greedy by likelihood", "nearest unit")} <= set(
        card["figures"]
    )
    assert card["figures"]["names the meaning, nearest unit"] == 1
    assert card["data"] == {"annotations": "net/colours", "units": 60, "test": 0.1, "seed": 0}
    assert "milan_small" in path.with_suffix(".md").read_text()
    found = describer.load(path)
    assert found.domain == "shapes" and found.encoder.name == "shapes_explainer"
    sample = milannotations.load("net/colours", root)[1]
    assert found(sample.images, sample.masks).tokens.shape[0] == 1
    again = task(root).run(trainer, tmp_path / "again", str(tmp_path / "run" / "decoder.ckpt"))
    assert again.read_bytes() == path.read_bytes()

    swept = Sweep(source=Known(root), weights=path, beams=[2, 5], temperatures=[0.1, 0.3])
    text = swept.run(Given(trainer, tmp_path))
    columns, rows = read_csv(tmp_path / "sweep.csv")
    assert tuple(columns) == COLUMNS and len(rows) == 1 + 2 + 2 + 4 + 2 + 1
    assert [row.cells["units"] for row in rows] == ["6"] * len(rows) and "nearest unit" in text
    with pytest.raises(UserError, match="no way to search"):
        Sweep(source=Known(root), weights=path, strategies=["beem"]).run(Given(trainer, tmp_path))


def test_without_a_language_model_beams_are_the_default(root, tmp_path, trainer):
    path = task(root, language_model=False, test=0, epochs=1).run(trainer, tmp_path)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["captioner"]["strategy"] == "beam" and card["figures"] == {}
    assert describer.load(path).captioner.language_model is None


def test_a_mistake_is_said_before_anything_is_trained(root, tmp_path, trainer):
    with pytest.raises(UserError, match="no trained part `shapes_resnt`"):
        task(root, encoder="shapes_resnt").run(trainer, tmp_path)
    with pytest.raises(UserError, match="net/colors"):
        task(root, annotations="net/colors").run(partial(trainer), tmp_path)
