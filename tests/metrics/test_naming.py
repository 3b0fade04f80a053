import pytest

from neuronx.errors import UserError
from neuronx.metrics.naming import matching, names, naming


@pytest.mark.parametrize(
    ("caption", "phrase", "found"),
    [
        ("Red circles on grass", "circle", True),
        ("Red circles on grass", "red circle", True),
        ("A hundred boxes", "red", False),
        ("A hundred boxes", "box", True),
        ("striped things", "strip*", True),
        ("striped things", "stripe", False),
        ("top-left corner", "left", True),
        ("circles that are red", "red circle", False),
    ],
)
def test_phrases_are_found_as_whole_words(caption, phrase, found):
    assert names(caption, [phrase]) is found


def test_any_phrase_will_do_but_there_must_be_one():
    assert matching(["Eyes", "a nose", "tail"], ["eye", "nose"]).tolist() == [True, True, False]
    with pytest.raises(UserError, match="one or more"):
        matching(["Eyes"], [])
    with pytest.raises(UserError, match="blank"):
        names("Eyes", [" "])


def test_kinds_of_captions_are_compared_on_the_same_units():
    wanted = [["red"]] * 40 + [["blue"]] * 10 + [[]]
    found = naming({"ours": ["red"] * 40 + ["blue"] * 10 + ["x"], "constant": ["blue"] * 51}, wanted)
    assert found["ours"].share == 1 and found["ours"].lead == 0 and found["ours"].n == 50
    assert found["constant"].share == pytest.approx(0.2) and found["constant"].lead == pytest.approx(0.8)
    assert 0.6 < found["constant"].lead_low < 0.8 < found["constant"].lead_high < 0.95
    with pytest.raises(UserError, match="something to be named"):
        naming({"ours": ["red"]}, [["red"], ["blue"]])
