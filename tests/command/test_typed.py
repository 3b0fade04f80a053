"""What was typed is what is meant, on the command line and in a user's YAML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from neuronx.command.typed import meant, quoted, readable
from neuronx.errors import UserError


def takes(
    name: str | None = None,
    names: Sequence[str] = (),
    root: str | Path | None = None,
    rate: float = 0.1,
    count: int = 1,
    either: int | str = 0,
    by: Mapping[str, str] | None = None,
    anything: Any = None,
    flag: bool = False,
) -> None:
    """An option of every kind."""


BASE = {
    "data": {"_target_": f"{__name__}.takes"},
    "layers": None,
    "seed": 0,
    "units": None,
    "milan": {},
    "exemplars": None,
}
METHOD = {"_target_": "neuronx.methods.milan.method.Milan", "weights": "${milan.weights}", "k": "${milan.k}"}
NETWORK = {"_target_": "neuronx.targets.timm.load", "model": "x"}


def read(*words: str) -> Any:
    """What Hydra makes of words, and then of what they mean."""
    typed = [readable(word) for word in words]
    cfg = OmegaConf.create(BASE | {"explain": {"milan": METHOD}, "target": {"timm": NETWORK}})
    for override in OverridesParser.create().parse_overrides(typed):
        OmegaConf.update(cfg, override.key_or_group, override.value())
    return meant(cfg, typed)


@pytest.fixture
def composed(tmp_path):
    """Reads `data/mine.yaml` of a user's folder with this content."""

    def compose_mine(content: str) -> Any:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "mine.yaml").write_text(content)
        with initialize_config_module("neuronx.configs", version_base="1.3"):
            typed = [f"hydra.searchpath=['file://{tmp_path}']", "data=mine", readable("layers=0.10"), "explain=[]"]
            return meant(compose("evaluate", overrides=typed), typed)

    return compose_mine


# fmt: off
WORDS = ["3", "0.10", "1e5", "1_000", "+3", "-2", ".5", "5.", "true", "True", "yes", "null", "inf", "nan", "007",
         "0x10", "1:30", "2012-01-01", "01"]
ODD = ["données", "数据", "😀", "my data (1)", "a=b", "mlp[1]", "it's", 'say "x"', "a#b", "~/x", "C:\\new folder (1)\\",
       "a,b", "[x]", "{x}", "[x", "(x)", "50%", "x*y", "a&b", "!x", "a;b", "c:\\d", "a @b", "'", "\\'", "range(1,3)"]
# fmt: on


@pytest.mark.parametrize("word", [*WORDS, *ODD])
def test_a_text_is_what_was_typed(word):
    cfg = read(f"data.root={word}", f"data.name={word}")
    assert cfg.data.root == cfg.data.name == (None if word == "null" else word)


@pytest.mark.parametrize("word", [*WORDS, "données", "数据 (1)", "a=b", "mlp[1]", "it's"])
def test_texts_in_a_list(word):
    cfg = read(f"data.names=[{word}, x]", f"layers=[{word},{word}]")
    said = None if word == "null" else word  # what takes the list refuses it: in quotes it is a name
    assert cfg.data["names"] == [said, "x"] and cfg.layers == [said, said]
    assert read("data.names=['null']").data["names"] == ["null"]


@pytest.mark.parametrize("word", [*WORDS[:8], "données", "blocks.3"])
def test_keys_and_values_of_a_dictionary(word):
    cfg = read(f"data.by={{{word}: {word}}}", f"layers={{{word}: avg}}")
    assert dict(cfg.data.by) == {word: word} and dict(cfg.layers) == {word: "avg"}


def test_numbers_stay_numbers():
    cfg = read("data.rate=1e-3", "data.count=1_000", "data.flag=True", "seed=3", "data.anything={a: [0.10, x, yes]}")
    assert cfg.data.rate == 0.001 and cfg.data["count"] == 1000 and cfg.data.flag is True and cfg.seed == 3
    assert cfg.data.anything == {"a": [0.1, "x", "yes"]}
    cfg = read("data.either=7", "data.anything='0.10'", "units=[1,7]", "exemplars={k: 15, images: all}")
    assert cfg.data.either == 7 and cfg.data.anything == "0.10" and cfg.units == [1, 7] and cfg.exemplars.k == 15


def test_a_text_that_lies_elsewhere():
    """`milan.weights` is a key of its own, which the method refers to."""
    cfg = read("milan.weights=0.10", "milan.k=10")
    assert cfg.milan.weights == "0.10" and cfg.explain.milan.k == 10


def test_options_of_networks_that_only_the_general_loader_names():
    cfg = read("target.timm.model=3", "target.timm.layers=0.10", "target.timm.dictionary=2012")
    assert cfg.target.timm.model == "3" and cfg.target.timm.layers == "0.10" and cfg.target.timm.dictionary == "2012"


def test_yaml_of_the_users(composed):
    content = (
        f"_target_: {__name__}.takes\nname: 0.10\n"
        'names: [yes, 1e5, 0x10, "null"]\nroot: 2012\nrate: 1e-3\ncount: 0x10\n'
        'anything: {a: 0.10, b: "0.10", 3: no}\nby: {0.10: 3}\nflag: on\neither: 1:30\n'
    )
    cfg = composed(content)
    data = OmegaConf.to_container(cfg.data)
    assert cfg.layers == "0.10"
    assert data["name"] == "0.10" and data["names"] == ["yes", "1e5", "0x10", "null"] and data["root"] == "2012"
    assert data["rate"] == 0.001 and data["count"] == 16 and data["flag"] is True and data["by"] == {"0.10": "3"}
    assert data["anything"] == {"a": 0.1, "b": "0.10", 3: False}


@pytest.mark.parametrize("word", ["seed=1,2", "layers=a,b", "data.names=a,b"])
def test_commas_where_a_list_may_be_meant_are_asked_about(word):
    with pytest.raises(UserError, match=r"has commas; for a list, type '[\w.]+=\[\w,\w\]'"):
        read(word)


@pytest.mark.parametrize("content", ["a: [", "\x00", "_target_: !!python/object/apply:os.system [x]", "a: b: c"])
def test_a_file_that_is_no_yaml_is_named(composed, content):
    with pytest.raises(UserError, match=r"mine\.yaml.*is no YAML"):
        composed(content)


@pytest.mark.parametrize("word", [*WORDS, *ODD, *(f"[{word}]" for word in WORDS), "{a: [1,{b: c}]}", "[[1,2],x]"])
def test_words_are_made_readable_once(word):
    once = readable(f"x.y={word}")
    assert readable(once) == once


def test_what_is_no_option_and_choices_stay_as_they_are():
    for word in ("--config-dir=données", "-m", "layer4", "~explain", "explain=[le_label,milan]"):
        assert readable(word, ["explain"]) == word
    assert readable("hydra.run.dir=0.10") == "hydra.run.dir='0.10'"
    assert quoted("a'b\\") == "'a\\'b\\\\'"
