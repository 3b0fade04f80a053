"""The configuration of the two commands (Hydra). A choice of a group is a file, `group/choice.yaml`, or has none:

- variants of a file, with a few values changed (variants.yaml);
- recipes, the rows of published tables (recipes.yaml);
- `judge=X` and `judge=X+visual` for every CLIP X, and `describe=X` for every method X that needs no maps of units:
  parts have none.

Importing this package lets Hydra find choices without a file.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

HERE = Path(__file__).resolve().parent
NEED_MAPS = ("net_dissect", "compositional", "pure")


def read(name: str) -> Any:
    """A file of this folder as plain containers."""
    return OmegaConf.to_container(OmegaConf.load(HERE / f"{name}.yaml"))


def variant(group: str, base: str, choice: str, changed: dict[str, Any]) -> dict[str, Any]:
    """The content of `base` with some values changed; a choice of a list group nests under its own name."""
    content = read(f"{group}/{base}")
    nested = list(content) == [base]
    values = content[base] if nested else content
    values |= ({"name": choice} if "name" in values else {}) | changed
    return {choice: values} if nested else values


def recipe(row: dict[str, Any]) -> Any:
    """Overrides the choice of each group that the row names, and sets the values of its other keys."""
    groups = [key for key in row if (HERE / key).is_dir()]
    node = OmegaConf.create({"defaults": [{f"override /{group}": row[group]} for group in groups]})
    for key in row:
        if key not in groups:
            OmegaConf.update(node, key, row[key])
    return OmegaConf.to_container(node)


def with_visual(clip: str) -> dict[str, Any]:
    """A CLIP as judge, but of features of pictures, which are computed."""
    visual = {"_target_": "neuronx.concepts.visual.bank.VisualConcepts"}
    return {"defaults": [{"/clip@clip": clip}], "_target_": "neuronx.concepts.joined.with_visual", "visual": visual}


def included(group: str, choice: str) -> dict[str, Any]:
    """The same as a choice of another group."""
    return {"defaults": [{f"/{group}@_here_": choice}]}


@cache
def choices() -> dict[str, Callable[[], dict[str, Any]]]:
    """What makes the content of every `group/choice` that has no file."""
    made: dict[str, Callable[[], dict[str, Any]]] = {}
    for group, bases in read("variants").items():
        for base, changes in bases.items():
            made |= {f"{group}/{choice}": partial(variant, group, base, choice, changes[choice]) for choice in changes}
    for block in read("recipes"):
        made |= {f"recipe/{name}": partial(recipe, block["shared"] | row) for name, row in block["recipes"].items()}
    for group, source in (("judge", "clip"), ("describe", "explain")):
        files = [path.stem for path in (HERE / source).glob("*.yaml") if path.stem not in NEED_MAPS]
        names = files + [name.removeprefix(f"{source}/") for name in made if name.startswith(f"{source}/")]
        made |= {f"{group}/{name}": partial(included, source, name) for name in names}
        if group == "judge":
            made |= {f"judge/{name}+visual": partial(with_visual, name) for name in names}
    return made


def theirs() -> dict[str, Callable[[], dict[str, Any]]]:
    """`judge=X` and `judge=X+visual` for every CLIP X in the folders of the user's on the search path of the run."""
    hydra = GlobalHydra.instance()
    if not hydra.is_initialized():
        return {}
    places = [item.path for item in hydra.config_loader().get_search_path().get_path() if item.path]
    folders = [Path(place.removeprefix("file://")) / "clip" for place in places if place.startswith("file://")]
    names = [path.stem for folder in folders for path in folder.glob("*.yaml")]
    made = {f"judge/{name}": partial(included, "clip", name) for name in names}
    return made | {f"judge/{name}+visual": partial(with_visual, name) for name in names}


def known() -> dict[str, Callable[[], dict[str, Any]]]:
    """What makes the content of every choice without a file, of ours and of the user's."""
    return choices() | theirs()


class Choices(ConfigSource):
    """Hands the choices that have no file to Hydra."""

    @staticmethod
    def scheme() -> str:
        """How the search path names them."""
        return "choices"

    def load_config(self, config_path: str) -> ConfigResult:
        """The content of a choice; recipes set values of the whole configuration."""
        name = config_path.removesuffix(".yaml")
        package = "_global_" if name.startswith("recipe/") else None
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create(known()[name]()), {"package": package})

    def available(self) -> bool:
        """Always."""
        return True

    def is_config(self, config_path: str) -> bool:
        """Whether this is a choice, such as clip/clip_rn50."""
        return config_path.removesuffix(".yaml") in known()

    def is_group(self, config_path: str) -> bool:
        """Whether this is a group of choices."""
        return any(name.startswith(f"{config_path}/") for name in known())

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The choices of a group, or the groups."""
        if not config_path:
            return sorted({name.split("/")[0] for name in known()} if results_filter != ObjectType.CONFIG else ())
        if results_filter == ObjectType.GROUP:
            return []
        return sorted(name.split("/")[1] for name in known() if name.startswith(f"{config_path}/"))


class Search(SearchPathPlugin):
    """Puts them on Hydra's search path, behind the files."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra for every search path."""
        search_path.append("neuronx", "choices://")


Plugins.instance().register(Choices)
Plugins.instance().register(Search)
