"""Which features layers use: shares of groups, and the picture of them."""

import numpy as np
import pytest
from PIL import Image

from neuronx.concepts.visual.bank import FEATURES
from neuronx.errors import UserError
from neuronx.experiments.given import Given
from neuronx.experiments.visual_use import GROUP_OF, GROUPS, OTHER, VisualUse, group_shares
from neuronx.report.group_shares import PALETTE, LayerShares, group_shares_picture
from neuronx.types import Explanation, Unit


class Sayer:
    """A method that says the same of every layer."""

    def explain(self, target, probe, trainer):
        return [
            Explanation(Unit(layer, k), terms, notes=(("val correlation", 0.5),))
            for layer in target.layers
            for k, terms in enumerate([(("green", 3.0), ("little fine texture", 1.0)), (("zebra", 2.0),), ()])
        ]


def test_every_feature_is_of_a_group_that_is_drawn():
    assert {feature.group for feature in FEATURES} == set(GROUPS)
    assert len(GROUP_OF) == 2 * len(FEATURES) and len(GROUPS) + 1 <= len(PALETTE)


def test_a_unit_counts_once_and_is_shared_out_by_weight():
    units = [(("green", 3.0), ("little fine texture", -1.0)), (("zebra", 2.0),)]
    shares = group_shares([Explanation(Unit("a", k), terms) for k, terms in enumerate(units)])
    assert shares == pytest.approx({"colours": 0.375, "texture": 0.125, OTHER: 0.5})
    assert group_shares([]) == {}


def test_networks_side_by_side(target, probe, trainer, tmp_path):
    text = VisualUse().run(Given(trainer, tmp_path, {"net": target, "other": target}, probe, {"le_visual": Sayer()}))
    assert "net see" in text and "other see" in text and "38 %" in text
    lines = (tmp_path / "visual_use.csv").read_text().splitlines()
    assert lines[1].split(",")[:3] == ["net", "see", "colours"] and len(lines) == 1 + 2 * 2 * 3
    assert Image.open(tmp_path / "visual_use.png").width > 600


def test_without_a_method_or_an_explained_unit(target, probe, trainer, tmp_path):
    with pytest.raises(UserError, match="choose explain=le_visual"):
        VisualUse().run(Given(trainer, tmp_path, {"net": target}, probe, {}))


def test_columns_are_as_tall_as_their_shares():
    layers = [LayerShares("a", {"lines": 0.25, "colours": 0.75})]
    picture = np.asarray(group_shares_picture({"net": layers}, ["colours", "lines"]))
    column = picture[:, 2 * (28 + 4)]
    counts = [(column == [int(c[i : i + 2], 16) for i in (1, 3, 5)]).all(1).sum() for c in PALETTE[:2]]
    assert counts == [630, 210]
