"""The one registry: methods, judges, scorers, CLIPs and word lists are what the YAMLs of these groups name.

The command line composes them from what is typed, Python from names and arguments. YAMLs are looked for in
`neuronx.configs`, in the packages that others name under the entry point group `neuronx.configs`, and in a folder of
the user's (`--config-dir DIR`, or `configs=DIR` from Python).
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import InstantiationException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import neuronx.configs
from neuronx.command.callables import check_calls, named
from neuronx.command.checked import check_options, hold
from neuronx.command.typed import meant
from neuronx.errors import UserError, first_line, unknown

CONFIGS = neuronx.configs.__name__
"""Where our YAMLs are; and the group of entry points by which others add theirs: `mine = mypackage.configs`."""


class InstalledConfigs(SearchPathPlugin):
    """Lets Hydra find the YAMLs of installed packages, after our own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra whenever it starts."""
        for package in packages():
            search_path.append(CONFIGS, f"pkg://{package}")


Plugins.instance().register(InstalledConfigs)


def packages() -> list[str]:
    """The packages with YAMLs that are installed beside neuronx."""
    return sorted({entry.value for entry in entry_points(group=CONFIGS)})


def build(node: Any) -> Any:
    """Instantiates a part of the configuration; plain containers only, so that no ListConfig reaches a model.

    Raises:
        UserError: For what is no network, method or data, or an option that it cannot take, before anything is called.
    """
    if node is None:
        return None
    check_calls(node)
    check_options(node)
    return hydra.utils.instantiate(node, _convert_="all")


def check_own(folder: str | Path) -> None:
    """Raises UserError for a YAML of the user's with the name of a choice of ours, which would be taken instead."""
    for file in sorted(Path(folder).glob("*/*.yaml")):
        group, name = file.parent.name, file.stem
        if (neuronx.configs.HERE / group / file.name).is_file() or f"{group}/{name}" in neuronx.configs.choices():
            raise UserError(
                f"{file} has the name of a choice of neuronx, and {group}={name} would mean that one: give the file "
                "another name."
            )


@dataclass(frozen=True)
class Registry:
    """What Python can build by name, for pictures of one kind.

    Attributes:
        domain: Of the pictures: natural ones bring their own CLIPs, as on the command line.
        configs: A folder of the user's.
        seed: Of whatever draws.
    """

    domain: str
    configs: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.configs is not None:
            check_own(self.configs)

    def choices(self, group: str) -> list[str]:
        """The names in a group, those of packages and of the user's folder too."""
        mine = [file.stem for file in (self.configs / group).glob("*.yaml")] if self.configs is not None else []
        with hydra.initialize_config_module(CONFIGS, version_base="1.3"):
            return sorted({*GlobalHydra.instance().config_loader().get_group_options(group), *mine})

    def method(self, name: str, options: Mapping[str, Any], **inputs: Any) -> Any:
        """A method with its options, and `clip`, `concepts` and `describe` as `_compose` takes them."""
        from neuronx.concepts.joined import WordsBeside

        self._check("method", "explain", name)
        cfg = self._compose([f"explain=[{name}]"], inputs)
        node = cfg.explain[name]
        text = OmegaConf.to_yaml(node)
        text += OmegaConf.to_yaml(cfg.describe) if "${describe}" in text else ""
        if not isinstance(inputs.get("concepts"), WordsBeside):
            text = text.replace("beside: ${concepts}", "")  # which takes no words
        for group, value in inputs.items():
            if value is not None and f"${{{group}}}" not in text:
                raise UserError(f"The method {name} takes no {PYTHON[group]}=.")
        return self._build(node, options, f"method {name}")

    def scorer(self, name: str, options: Mapping[str, Any], **inputs: Any) -> Any:
        """A way to score with its options."""
        if name == "stored":
            raise UserError("sim='stored' reads scores from files: python evaluate.py explanations=DIR sim=stored.")
        self._check("way to score", "sim", name)
        return self._build(self._compose([f"sim=[{name}]"], inputs).sim[name], options, f"score {name}")

    def judge(self, name: str) -> Any:
        """A judge: `clip` is the one that belongs to the pictures."""
        if self.configs is not None and (self.configs / "clip" / f"{name}.yaml").is_file():
            return self._build(self._compose([f"clip={name}"], {}).clip, {}, f"judge {name}")
        if name != "clip":
            self._check("judge", "judge", name, ["clip"])
        return self._build(self._compose([] if name == "clip" else [f"judge={name}"], {}).judge, {}, f"judge {name}")

    def words(self, name: str) -> Any:
        """A word list by the name of its config."""
        self._check("word list", "concepts", name)
        return self._build(self._compose([f"concepts={name}"], {}).concepts, {}, f"word list {name}")

    def _check(self, kind: str, group: str, name: str, more: Sequence[str] = ()) -> None:
        known = [*more, *self.choices(group)]
        if name not in known:
            raise unknown(kind, name, known)

    def _compose(self, choices: Sequence[str], inputs: Mapping[str, Any]) -> DictConfig:
        """The configuration of evaluate.py; inputs are names of choices or objects, None for the default."""
        overrides = [*choices, f"seed={self.seed}", *(["data=folder"] if self.domain == "natural" else [])]
        for group, value in inputs.items():
            if isinstance(value, str):
                self._check(PYTHON[group], group, value)
                overrides.append(f"{group}={value}")
        if self.configs is not None:
            overrides.append(f"hydra.searchpath=['file://{self.configs.resolve()}']")
        with hydra.initialize_config_module(CONFIGS, version_base="1.3"):
            cfg = meant(hydra.compose("evaluate", overrides=overrides))
        cfg._set_flag(["allow_objects", "struct"], [True, False])
        for group, value in inputs.items():
            if value is not None and not isinstance(value, str):
                cfg[group] = hold(value)
        return cfg

    def _build(self, node: DictConfig, options: Mapping[str, Any], what: str) -> Any:
        known = [*node, *inspect.signature(named(node["_target_"])).parameters]
        for name, value in options.items():
            if name not in known or name.startswith("_"):
                raise unknown(f"option of the {what}", name, sorted({name for name in known if name[0] != "_"}))
            nested = isinstance(value, Mapping) and OmegaConf.is_dict(node.get(name))
            node[name] = OmegaConf.merge(node[name], value) if nested else hold(value)
        try:
            return build(node)
        except (InstantiationException, OmegaConfBaseException) as error:
            cause = error.__cause__
            if isinstance(cause, UserError):
                raise cause from None
            why = first_line(cause if isinstance(cause, Exception) else error)
            raise UserError(f"The {what} cannot be made so: {why}.") from error


PYTHON = {"clip": "clip", "concepts": "words", "describe": "describe"}
"""Groups that are inputs of methods, and what Python calls them."""
