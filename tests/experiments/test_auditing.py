import pytest

from neuronx.errors import UserError
from neuronx.experiments.auditing import audit, audit_table, wilson, write_audit
from neuronx.experiments.feature_importance import property_of
from neuronx.types import Unit


def captions(faces, others):
    texts = ["A person's Face"] * faces + ["dogs"] * others
    return {Unit("layer4", i): text for i, text in enumerate(texts)}


def test_wilson_intervals_are_the_textbook_ones():
    assert wilson(56, 70) == pytest.approx((0.6917, 0.8770), abs=2e-3)
    assert wilson(0, 10)[0] == 0 and wilson(0, 10)[1] == pytest.approx(0.2775, abs=1e-3)
    assert wilson(10, 10)[1] == pytest.approx(1)


def test_conditions_are_compared_with_the_first(tmp_path):
    found = audit({"blurred": captions(48, 32), "plain": captions(56, 14)}, ["face", "nose"])
    assert [len(one.matched) for one in found] == [48, 56]
    # Newcombe (1998), table II, method 10: 56/70 - 48/80
    assert found[1].difference == pytest.approx(0.2)
    assert (found[1].difference_low, found[1].difference_high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    table = audit_table(found, ["face", "nose"], examples=1)
    assert "face | nose" in table and "+0.200" in table and table.count("A person's Face") == 2
    assert write_audit(tmp_path / "audit.csv", found).read_text().count("\n") == 1 + 48 + 56


def test_nothing_to_search_is_said():
    with pytest.raises(UserError, match="no captions"):
        audit({"plain": {}}, ["face"])
    with pytest.raises(UserError, match="one or more"):
        audit({"plain": captions(1, 1)}, [])


def test_properties_of_captions():
    texts = ["Red and blue circles.", "sky"]
    assert property_of(texts, "length").tolist() == [5, 1]
    assert property_of(texts, "names:circle|dog").tolist() == [1, 0]
    spaces = {"sky": [1.0, 0], "water": [3.0, 4], "Red and blue circles.": [0.0, 2]}
    import torch

    found = property_of(texts, "like:water", lambda phrases: torch.tensor([spaces[phrase] for phrase in phrases]))
    assert found.tolist() == pytest.approx([0.8, 0.6])
    for wrong, message in (("colour", "property of captions"), ("like:water", "CLIP"), ("names:", "one or more")):
        with pytest.raises(UserError, match=message):
            property_of(texts, wrong)
