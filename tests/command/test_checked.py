"""Options are compared with what they are options of, before anything is called."""

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from neuronx.command import cli
from neuronx.command.checked import check_options
from neuronx.command.registry import build
from neuronx.errors import UserError

GROUPS = [
    "target",
    "data",
    "clip",
    "judge",
    "describe",
    "explain",
    "sim",
    "concepts",
    "logger",
    "trainer",
    "annotations",
    "experiment",
]


@pytest.fixture
def composed():
    with initialize_config_module("neuronx.configs", version_base="1.3"):
        yield lambda *overrides, main="evaluate": compose(main, overrides=list(overrides))


@pytest.mark.parametrize(
    ("part", "overrides", "message"),
    [
        ("data", ["data.size=abc"], "data.size=abc must be a whole number of at least 1."),
        ("data", ["data.size=1.5"], "data.size=1.5 must be a whole number of at least 1."),
        ("data", ["data.num_workers=-1"], "data.num_workers=-1 must be a whole number of at least 0."),
        ("data", ["data=folder", "data.max_unreadable=2"], "data.max_unreadable=2 must be a number from 0 to 1."),
        (
            "data",
            ["data=folder", "data.splits=-1"],
            "data.splits=-1 must be a whole number from 0 to 4294967295, a text",
        ),
        ("data", ["data=imagenet_val", "data.batch_size=0"], "data.batch_size=0 must be a whole number of at least 1."),
        ("data", ["+data.sise=3"], "There is no option `data.sise`. Nearest: data.size"),
        ("explain", ["explain.le_label.max_length=true"], "explain.le_label.max_length=true must be a whole number"),
        ("explain", ["explain.net_dissect.grid=[3]"], "explain.net_dissect.grid=[3] must be a list of 2"),
        ("explain", ["milan.beam_size=0"], "milan.beam_size=0 must be a whole number of at least 1 or null."),
        (
            "explain",
            ["explain.le_label.seed=x"],
            "explain.le_label.seed=x must be a whole number from 0 to 4294967295.",
        ),
        ("explain", ["seed=x"], "seed=x must be a whole number from 0 to 4294967295."),
        ("explain", ["explain=[pure]", "explain.pure.describe=abc"], "explain.pure.describe=abc must be a mapping"),
        (
            "sim",
            ["sim=[ablation]", "sim.ablation.steps=-1"],
            "sim.ablation.steps=-1 must be a whole number of at least 0.",
        ),
        ("logger", ["logger.wandb.timeout=soon"], "logger.wandb.timeout=soon must be a number of at least 0."),
        ("target", ["target=[custom]"], "`target.custom.model=` must be given; it must be a text"),
        (
            "target",
            ["target=[timm]", "target.timm.model=x", "+target.timm.layer=a"],
            "option `target.timm.layer`. Nearest",
        ),
        ("trainer", ["++trainer.devicess=2"], "There is no option `trainer.devicess`. Nearest: trainer.devices"),
        ("trainer", ["++trainer.precision=8"], "trainer.precision=8 must be 64, 32, 16, "),
        ("trainer", ["++trainer.callbacks=foo"], "trainer.callbacks=foo must be a list (each a Callback object)"),
    ],
)
def test_a_wrong_option_is_named_as_typed(composed, part, overrides, message):
    with pytest.raises(UserError) as mistake:
        build(composed(*overrides)[part])
    assert str(mistake.value).startswith(message) or message in str(mistake.value)


def test_every_default_of_every_choice_is_right(composed):
    for group in GROUPS:
        for choice in GlobalHydra.instance().config_loader().get_group_options(group):
            node = composed(f"{group}=[{choice}]" if group in cli.LISTS else f"{group}={choice}")[group]
            try:
                check_options(node)
            except UserError as mistake:
                assert "must be given" in str(mistake), (group, choice)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("accelerator=foo", "trainer.accelerator=foo: You selected an invalid accelerator name"),
        ("accelerator=mps", "trainer.accelerator=mps: this machine has no such device"),
        ("devices=0", "trainer.devices=0"),
        ("max_epochs=-3", "trainer.max_epochs=-3: `max_epochs` must be"),
        ("strategy=foo", "trainer.strategy=foo"),
    ],
)
def test_what_lightning_refuses_is_named(composed, option, message):
    with pytest.raises(UserError) as mistake:
        build(composed("++trainer.accelerator=cpu", f"++trainer.{option}").trainer)()
    assert message in str(mistake.value)
