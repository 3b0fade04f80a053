"""The network under study: recording and replacing through hooks that never stay, names, units, identity."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuronx.errors import UserError
from neuronx.targets.dictionary import Dictionary
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.replay import Tail
from neuronx.targets.segment import Segment
from neuronx.targets.target import Target
from neuronx.types import Unit


class Net(nn.Module):
    """Conv, in-place ReLU used twice, a part that never runs, tokens, and a class."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.mlp = nn.Sequential(nn.Linear(4, 6), nn.GELU())
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.act(self.conv(x))
        tokens = self.mlp(x.flatten(2).transpose(1, 2))
        return self.head(self.act(tokens).mean(1))


@pytest.fixture
def target():
    torch.manual_seed(0)
    return Target("net", Net(), Preprocess(), {"conv": "avg", "mlp[1]": "first"}, input_size=8)


IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def test_the_network_is_frozen_and_layers_get_canonical_names(target):
    assert not target.module.training and not any(p.requires_grad for p in target.module.parameters())
    assert target.layers == {"conv": "avg", "mlp.1": "first"}
    assert target.canonical("encoder.layers[3].mlp[1]") == "encoder.layers.3.mlp.1"


def test_outputs_are_recorded_before_later_layers_overwrite_them(target):
    with target.record(["conv", "mlp[1]", "act", ""]) as found:
        logits = target.module(IMAGES)
        before = target.module.conv(IMAGES)
    assert torch.equal(found["conv"], before) and (before < 0).any(), "not what the in-place ReLU made of it"
    assert found["mlp.1"].shape == (3, 64, 6) and torch.equal(found["mlp[1]"], found["mlp.1"])
    assert found["act"].shape == (3, 64, 6), "the last of its two runs"
    assert torch.equal(found[""], logits)
    assert hooks(target.module) == 0


def test_hooks_go_whatever_happens(target):
    with pytest.raises(ValueError, match="mine"), target.record(["conv"]), target.replace("conv", 0, 0.0):
        raise ValueError("mine")
    with pytest.raises(UserError), target.record(["conv", "nothing"]):
        pass
    with pytest.raises(UserError), target.replace("conv", 9, 0.0):
        target.module(IMAGES)
    assert hooks(target.module) == 0


def test_an_unknown_layer_names_the_nearest_and_where_to_look(target):
    for wrong in (lambda: target.select("hed"), lambda: target.record(["hed"]).__enter__()):
        with pytest.raises(UserError, match=r"no layer of net `hed`\. Nearest: head.*show=layers"):
            wrong()


def test_layer_names_are_not_code(target):
    with pytest.raises(UserError, match="no layer"):
        target.select("__import__('os').system('false')")


def test_a_layer_that_never_runs_is_named(target):
    with pytest.raises(UserError, match="Layer `unused` of net never runs"), target.record(["conv", "unused"]):
        target.module(IMAGES)


def test_asking_for_what_was_not_recorded(target):
    with target.record(["conv"]) as found:
        target.module(IMAGES)
        with pytest.raises(UserError, match="Layer `head` has recorded nothing"):
            found["head"]


@pytest.mark.parametrize("layer", ["conv", "mlp.0", "head"])
def test_replace_changes_exactly_one_unit(target, layer):
    with target.record([layer]) as found:
        logits = target.module(IMAGES)
    plain = found[layer]
    values = torch.tensor([1.0, -2.0, 3.0])
    with target.replace(layer, 2, values), target.record([layer]) as found:
        changed = target.module(IMAGES)
    unit = found[layer].movedim(1 if layer == "conv" else -1, 0)
    kept = [k for k in range(len(unit)) if k != 2]
    assert torch.equal(unit[kept], plain.movedim(1 if layer == "conv" else -1, 0)[kept])
    assert torch.equal(unit[2], values.view(-1, *[1] * (unit[2].ndim - 1)).expand_as(unit[2]))
    assert not torch.equal(changed, logits)
    assert torch.equal(target.module(IMAGES), logits), "only within the context"


def test_replace_takes_numbers_and_maps_and_refuses_the_rest(target):
    maps = torch.randn(3, 8, 8)
    with target.replace("conv", 1, maps), target.record(["conv"]) as found:
        target.module(IMAGES)
    assert torch.equal(found["conv"][:, 1], maps)
    with target.replace("conv", 1, 0.5), target.record(["conv"]) as found:
        target.module(IMAGES)
    assert (found["conv"][:, 1] == 0.5).all()
    with (
        pytest.raises(UserError, match=r"shape \(2,\) do not fit unit 1 of `conv`"),
        target.replace("conv", 1, torch.zeros(2)),
    ):
        target.module(IMAGES)
    with pytest.raises(UserError, match="units 0 to 3, not 4"), target.replace("conv", 4, 0.0):
        target.module(IMAGES)


Pair = namedtuple("Pair", "hidden other")


@dataclass
class Output:
    hidden: torch.Tensor
    count: int = 7


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: (x, None),
        lambda x: [(x,), 1],
        lambda x: Pair(x, x + 1),
        lambda x: Output(x),
        lambda x: OrderedDict(hidden=x, more=x + 1),
    ],
    ids=["tuple", "nested", "namedtuple", "dataclass", "mapping"],
)
def test_outputs_of_any_kind_give_and_take_their_first_tensor(wrap):
    class Wraps(nn.Module):
        def forward(self, x):
            return wrap(x * 2)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Wraps()

        def forward(self, x):
            self.seen = self.part(x)
            return x

    x = torch.randn(2, 5)
    target = Target("wrapped", Whole(), Preprocess(), {"part": "none"})
    with target.record(["part"]) as found, torch.no_grad():
        target.module(x)
        assert torch.equal(found["part"], x * 2)
    kind = type(target.module.seen)
    with target.replace("part", 3, 9.0), target.record(["part"]) as found:
        target.module(x)
    assert (found["part"][:, 3] == 9).all() and torch.equal(found["part"][:, :3], x[:, :3] * 2)
    assert type(target.module.seen) is kind


def test_transformers_own_outputs_too():
    from transformers.modeling_outputs import BaseModelOutput

    class Part(nn.Module):
        def forward(self, x):
            return BaseModelOutput(last_hidden_state=x, hidden_states=(x + 1,))

    target = Target("hf", nn.Sequential(Part()), Preprocess(), {"0": "first"})
    x = torch.randn(2, 3, 4)
    with target.replace("0", 1, 0.0), target.record(["0"]) as found:
        output = target.module(x)
    assert (found["0"][..., 1] == 0).all() and (output.last_hidden_state[..., 1] == 0).all()


class LastChannels(nn.Module):
    def forward(self, x):
        return x.movedim(1, -1)


@pytest.mark.parametrize(("channels", "size"), [("auto", 8), ("last", None)])
def test_channels_last_outputs_are_turned_round(channels, size):
    target = Target(
        "swin", nn.Sequential(LastChannels()), Preprocess(), {"0": "avg"}, input_size=size, channels=channels
    )
    with target.record(["0"]) as found, target.replace("0", 2, 1.0):
        target.module(IMAGES)
    assert torch.equal(found["0"], IMAGES)
    with target.replace("0", 2, 1.0):
        assert (target.module(IMAGES)[..., 2] == 1).all()


def test_channels_first_is_never_mistaken_where_the_input_is_not_square():
    wide = torch.randn(2, 8, 8, 5)
    target = Target("wide", nn.Sequential(nn.ReLU()), Preprocess(), {"0": "avg"})
    with target.record(["0"]) as found:
        target.module(wide)
    assert torch.equal(found["0"], wide.relu())


def test_outputs_without_units_are_refused():
    target = Target("odd", nn.Sequential(nn.Unflatten(1, (1, 1, 3))), Preprocess(), {"0": "avg"})
    with pytest.raises(UserError, match=r"shape \(3, 1, 1, 3, 8, 8\)"), target.record(["0"]):
        target.module(IMAGES)


def test_class_names_must_match_the_outputs(target):
    from dataclasses import replace

    named = replace(target, class_names=["a", "b", "c"])
    with pytest.raises(UserError, match="net has 5 outputs but 3 class names"), named.record(["conv"]):
        named.module(IMAGES)


def test_the_digest_knows_the_weights_and_the_architecture(target):
    from dataclasses import replace

    same = replace(target, digest="")
    assert same.digest == target.digest
    target.module.head.bias[0] += 1e-6
    assert replace(target, digest="").digest != target.digest

    def digest(module):
        return Target("x", module, Preprocess(), {"": "none"}).digest

    assert digest(nn.MaxPool2d(2)) != digest(nn.MaxPool2d(3))
    assert digest(nn.ReLU()) != digest(nn.GELU())


def test_select_changes_layers_poolings_and_units(target):
    assert target.select().layers == target.layers
    assert target.select("head").layers == {"head": "avg"}
    assert target.select(["mlp[1]", "head"]).layers == {"mlp.1": "first", "head": "avg"}
    assert target.select(pool="max").layers == {"conv": "max", "mlp.1": "max"}
    assert target.select({"conv": "max"}).layers == {"conv": "max"}
    assert target.select(units="1:3").units == {"conv": [1, 2], "mlp.1": [1, 2]}
    assert target.select(units=[0, 3]).select().units is None
    assert target.select("conv").digest == target.digest
    with pytest.raises(UserError, match="no pooling `mean`; there are avg"):
        target.select(pool="mean")
    with pytest.raises(UserError, match="no unit 5; the layer has units 0 to 3"):
        target.select("conv", units=[5])


def test_the_table_of_layers(target):
    rows = {row.name: row for row in target.layer_table()}
    assert "unused" not in rows and rows[""].units == 5
    assert (rows["conv"].kind, rows["conv"].units, rows["conv"].shape) == ("Conv2d", 4, (4, 8, 8))
    assert rows["conv"].poolings == ("avg", "max") and rows["head"].poolings == ("none",)
    assert (rows["mlp.1"].units, rows["mlp.1"].poolings) == (6, ("avg", "max", "first", "patch"))


def test_latents_stand_in_for_the_layer_that_their_dictionary_reads(target):
    from dataclasses import replace

    latents = replace(target, dictionary=Dictionary(torch.randn(9, 4)))
    assert latents.layers == {"conv.dictionary": "avg", "mlp.1": "first"}
    assert replace(target, layers={"": "avg"}, dictionary=Dictionary(torch.randn(9, 4))).select("conv").layers == {
        "conv.dictionary": "avg"
    }
    assert latents.select("mlp.0").layers == {"mlp.0.dictionary": "avg"}
    assert latents.select(["conv", "conv.dictionary"]).layers == {"conv": "avg", "conv.dictionary": "avg"}
    assert replace(target, dictionary=Dictionary(torch.randn(9, 5)), dictionary_layer="head").layers == {
        "conv": "avg",
        "mlp.1": "first",
        "head.dictionary": "avg",
    }
    assert latents.select("conv", units="random:3").units["conv.dictionary"][-1] < 9
    assert [row.kind for row in latents.layer_table(layers=["conv.dictionary"])] == ["Dictionary"]
    with pytest.raises(UserError, match="reads 4 units, but its layer has 6"):
        latents.select("mlp.0", units="0:2")
    with pytest.raises(UserError, match="can be recorded, not replaced"), latents.replace("conv.dictionary", 0, 0.0):
        pass


class Shared(nn.Module):
    """One activation for all layers, in place; or one for each layer, of the same numbers."""

    def __init__(self, depth: int, shared: bool) -> None:
        super().__init__()
        torch.manual_seed(depth)
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(depth))
        act = nn.ReLU(inplace=True)
        self.acts = nn.ModuleList(act if shared else nn.ReLU(inplace=True) for _ in range(depth))
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        for conv, act in zip(self.convs, self.acts, strict=True):
            x = act(conv(x))
        return self.head(x.mean((2, 3)))


@given(depth=st.integers(2, 4), call=st.integers(1, 4), named=st.booleans(), unit=st.integers(0, 2))
@settings(max_examples=12, deadline=None)
def test_a_call_of_a_shared_module_is_the_layer_that_a_module_of_its_own_would_be(depth, call, named, unit):
    call = min(call, depth) if named else depth
    shared = Target("shared", Shared(depth, True), Preprocess(), {"acts.0": "avg"})
    own = Target("own", Shared(depth, False), Preprocess(), {"acts.0": "avg"})
    name, other, outputs, logits = f"acts.0#{call}" if named else "acts.0", f"acts.{call - 1}", [], []
    for target, layer in ((shared, name), (own, other)):
        with torch.no_grad(), target.replace(layer, unit, 5.0), target.record([layer]) as found:
            target.module(IMAGES)  # the calls of another pass do not count
            logits.append(target.module(IMAGES))
        outputs.append(found[layer])
    assert torch.equal(*outputs) and torch.equal(*logits) and (outputs[0][:, unit] == 5).all()
    tails = [Tail(shared, name), Tail(own, other)]
    with torch.no_grad():
        for tail in tails:
            tail.load(IMAGES)
        logits = [tail.run(2, lambda x: x[:, unit].fill_(3.0)) for tail in tails]
    assert torch.allclose(*logits) and all(tail.partial for tail in tails)
    rows = {row.name: row for row in shared.layer_table()}
    assert [n for n in rows if "#" in n] == [f"acts.0#{k + 1}" for k in range(depth)] and "acts.0" in rows


def test_calls_that_do_not_exist_are_refused(target):
    target = Target("shared", Shared(2, True), Preprocess(), {"acts.0": "avg"})
    for context in (target.record(["acts.0#3"]), target.replace("acts.0#3", 0, 0.0)):
        with pytest.raises(UserError, match="its module runs only 2 times"), context:
            target.module(IMAGES)
    for wrong in ("acts.0#0", "acts.0#x", "act#1"):
        with pytest.raises(UserError, match=f"no layer of shared `{wrong}`. Nearest: acts"):
            target.select(wrong)
    assert hooks(target.module) == 0


def _own(name: str) -> str:
    """The module of its own that a call of the shared one is, of three."""
    return f"acts.{int(name.partition('#')[2] or 3) - 1}" if name.startswith("acts") else name


@pytest.mark.parametrize(("lower", "upper"), [("acts.0#1", "acts.0#3"), ("acts.0#2", "acts.0"), ("convs.1", "acts.0")])
def test_a_segment_lies_between_the_calls_that_are_named(lower, upper):
    shared = Target("shared", Shared(3, True), Preprocess(), {"acts.0": "avg"})
    own = Target("own", Shared(3, False), Preprocess(), {"acts.0": "avg"})
    gradients = []
    for target in (shared, own):
        names = [_own(name) if target is own else name for name in (lower, upper)]
        segment = Segment(target, *names)
        segment.trace(IMAGES[:2])
        below, above = segment.run(segment.features(IMAGES))
        gradients.append(segment.gradient(above, below, torch.ones_like(above)))
    assert torch.allclose(*gradients)


def test_complex_outputs_are_refused():
    class Fourier(nn.Module):
        def forward(self, x):
            return torch.fft.fft2(x)

    target = Target("fourier", nn.Sequential(Fourier()), Preprocess(), {"0": "avg"})
    with pytest.raises(UserError, match="`0` of fourier puts out complex numbers"), target.record(["0"]):
        target.module(IMAGES)
    assert not [row for row in target.layer_table() if row.name == "0"]


def test_units_asked_for():
    module = nn.Sequential(OrderedDict(a=nn.Identity(), mlp=nn.Sequential(nn.Identity(), nn.ReLU())))
    whole = Target("net", module, lambda x: x, {"a": "avg", "mlp.1": "avg"})
    some = replace(whole, units={"mlp.1": [1, 3]})
    assert whole.units_of("a", 3) == some.units_of("a", 3) == [0, 1, 2]
    assert some.units_of("mlp[1]", 5) == [1, 3]
    unit, part, other = Unit("mlp.1", 3), Unit("mlp.1", 3, 0), Unit("mlp.1", 2)
    assert [some.asks_for(one) for one in (unit, part, other)] == [True, True, False]
    assert whole.asks_for(other) and some.asks_for(Unit("a", 2))
