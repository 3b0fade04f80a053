import re
from types import SimpleNamespace

import pytest
import torch
from colour_eye import COLOURS, Eye
from torch import nn

from neuronx.data.in_memory import probe_of
from neuronx.errors import UserError
from neuronx.methods.clip_dissect.method import ClipDissect
from neuronx.scoring.correlation import Correlation
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.types import Unit, as_found


def network(weights):
    conv = nn.Conv2d(3, len(weights), 1, bias=False)
    conv.weight.data = torch.tensor(weights, dtype=torch.float32)[:, :, None, None]
    return Target("net", nn.Sequential(conv, nn.ReLU()), Preprocess(), {"0": "avg", "1": "max"})


@pytest.fixture
def probe():
    generator = torch.Generator().manual_seed(0)
    shades = torch.rand(200, 3, 1, 1, generator=generator) * 255
    return probe_of(shades.expand(-1, -1, 4, 4).to(torch.uint8).contiguous())


UNITS = [[1, 0, 0], [0, 2, -0.5], [0, 0, 3], [0, 0, 0]]
WORDS = SimpleNamespace(of=lambda probe: COLOURS)


@pytest.mark.parametrize("similarity", ["cos_similarity_cubed", "rank_reorder", "soft_wpmi", "wpmi", "cos_similarity"])
def test_units_get_the_colour_that_they_see(similarity, probe, trainer):
    options = {"top_k": 20} if "wpmi" in similarity else {"top_fraction": 0.5} if "rank" in similarity else {}
    method = ClipDissect(Eye(), WORDS, similarity, lam=None, **options)
    found = method.explain(network(UNITS), probe, trainer)
    assert [one.unit for one in found] == [Unit(layer, k) for layer in "01" for k in range(4)]
    fit = set(probe.split("train", "val").tolist())
    for one in found:
        if one.unit.index == 3:
            assert one.terms == () and str(one) == "inactive"
            continue
        assert one.terms == ((COLOURS[one.unit.index], 1.0),)
        assert len(one.evidence) == 15 and set(one.evidence) <= fit
        assert [name for name, _ in one.notes] == ["similarity"]


def test_explanations_say_which_clip_made_them(probe, trainer):
    found = ClipDissect(Eye(), WORDS, top_k=20).explain(network(UNITS), probe, trainer)
    assert {explanation.made_by for explanation in found} == {("digest of eye",)}
    named = as_found(found, "clip_dissect").explanations
    assert {explanation.made_by for explanation in named} == {("clip_dissect", "digest of eye")}


def test_some_units_are_scored_like_the_whole_layer(probe, trainer):
    method = ClipDissect(Eye(), WORDS, top_k=20)
    everything = method.explain(network(UNITS), probe, trainer)
    some = method.explain(network(UNITS).select(layers="0", units=[1, 2]), probe, trainer)
    assert some == everything[1:3]


def test_several_labels_share_the_weight(probe, trainer):
    first = ClipDissect(Eye(), WORDS, "cos_similarity", n_labels=2).explain(network(UNITS), probe, trainer)[1]
    assert first.terms[0] == ("green", 0.5) and len(first.terms) == 2


def test_test_images_are_not_looked_at(probe, trainer):
    def dissect():
        return ClipDissect(Eye(), WORDS, top_k=20).explain(network(UNITS), probe, trainer)

    before, load = dissect(), probe.load
    test = set(probe.split("test").tolist())
    probe.load = lambda rows: torch.stack([load([row])[0] * (row not in test) for row in rows])
    probe.__dict__["fingerprint"] = "another"
    assert dissect() == before


def test_explained_and_scored(probe, trainer):
    target = network(UNITS)
    found = ClipDissect(Eye(), WORDS, "cos_similarity_cubed").explain(target, probe, trainer)
    scores = Correlation(batch_size=16).score({"clip_dissect": found}, target, probe, Eye(), trainer).rows
    values = {one.unit: one for one in scores if one.method == "clip_dissect"}
    assert values[Unit("0", 0)].value > 0.999 and values[Unit("0", 3)].status == "inactive"
    assert values[Unit("1", 0)].pool == "max"
    assert {one.method for one in scores} == {"clip_dissect", "shuffled-clip_dissect", "random-clip_dissect", "ceiling"}
    with pytest.raises(UserError, match="layer among those asked for"):
        Correlation().score({"clip_dissect": found}, target.select(layers="0"), probe, Eye(), trainer)


def test_a_single_unit_has_nothing_to_compare_with(probe, trainer):
    with pytest.warns(UserWarning, match="one unit"):
        found = ClipDissect(Eye(), WORDS, top_k=20).explain(network(UNITS[:1]), probe, trainer)
    assert found[0].terms == ()
    found = ClipDissect(Eye(), WORDS, "cos_similarity_cubed").explain(network(UNITS[:1]), probe, trainer)
    assert found[0].terms == (("red", 1.0),)


def test_mistakes(probe, trainer):
    with pytest.raises(UserError, match=r"no similarity function `soft_wpm`.*soft_wpmi"):
        ClipDissect(Eye(), WORDS, "soft_wpm")
    for similarity, option, message in (
        ("rank_reorder", {"top_fraction": 5}, r"explain\.clip_dissect\.top_fraction=5 must be a number from 0 to 1"),
        ("soft_wpmi", {"memory_mb": -1}, r"memory_mb=-1 must be a whole number of at least 1"),
        ("wpmi", {"top_k": 2.5}, r"top_k=2.5 must be a whole number"),
        ("cos_similarity_cubed", {"min_norm": "abc"}, r"min_norm=abc must be a number above 0"),
    ):
        with pytest.raises(UserError, match=message):
            ClipDissect(Eye(), WORDS, similarity, **option)
    with pytest.raises(UserError, match="no option of rank_reorder `top_k`"):
        ClipDissect(Eye(), WORDS, "rank_reorder", top_k=5)
    with pytest.raises(UserError, match="n_labels"):
        ClipDissect(Eye(), WORDS, n_labels=0)
    with pytest.raises(UserError, match=re.escape("top 200 images") + r".*160.*explain\.clip_dissect\.top_k="):
        ClipDissect(Eye(), WORDS, top_k=200).explain(network(UNITS), probe, trainer)
    method, broken = ClipDissect(Eye(), WORDS, top_k=20), SimpleNamespace(units=(Unit("a", 0), Unit("a", 1)), layer="a")
    broken.values = torch.rand(200, 2)
    broken.values[17, 1] = torch.nan
    with pytest.raises(UserError, match=r"Unit a:1 .*not finite"):
        method.explain_layer(broken, torch.arange(200), torch.rand(200, 3), COLOURS)


def test_words_have_support_and_those_with_too_little_take_no_part(probe, trainer):
    target, mass = network(UNITS[:3]), Eye().colours(probe)[probe.splits["train"]].double().sum(0)
    found = ClipDissect(Eye(), WORDS, "cos_similarity_cubed").explain(target, probe, trainer)
    for one in found:
        assert one.support[0][0] == round(mass[COLOURS.index(one.terms[0][0])].item(), 1)
    least = float(mass.min()) + 0.01
    kept = ClipDissect(Eye(), WORDS, "cos_similarity_cubed", min_support=least).explain(target, probe, trainer)
    assert {one.terms[0][0] for one in kept} == set(COLOURS) - {COLOURS[int(mass.argmin())]}
    with pytest.raises(UserError, match="No word is shown by 1000 train images"):
        ClipDissect(Eye(), WORDS, "cos_similarity_cubed", min_support=1000).explain(target, probe, trainer)
