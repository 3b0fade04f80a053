"""What was typed is what is meant: values of the command line and of the user's YAMLs, without loss on their way.

Hydra and YAML take `0.10` for the number .1, `yes` for true and `3` for a number, whatever the option is for. Here such
words keep their spelling until it is known what takes them: the annotation of the option decides. Where a text is
wanted it is the text as typed; otherwise it is what YAML makes of it. What Hydra's grammar cannot read, such as letters
beyond ASCII, blanks with brackets, or an equals sign, is quoted for it.
"""

import inspect
import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader

from neuronx.command.callables import check_calls, check_names, named
from neuronx.errors import UserError
from neuronx.options import parameters

MARK = "__typed__"
"""Begins a word that looks like a number, true or false, until it is known what it is for."""
SEVERAL = "__several__"
"""Begins words with commas between them."""
LETTERS = "__letters__"
"""Begins the key of a dictionary that is spelt in hexadecimal."""

Text = str | Path | None
TEXTS = {str, Path}
TOP: dict[str, Any] = {
    "layers": Text | Sequence[str] | Mapping[str, str],
    "pool": Text | Sequence[str] | Mapping[str, str],
    "show": Text,
    "explanations": Text | Sequence[str | Mapping[str, str]] | Mapping[str, str],
    "ckpt_path": Text,
    "seed": int,
}
"""What keys that belong to no choice are for."""


def readable(argument: str, groups: Sequence[str] = (), several: bool = False) -> str:
    """One argument of the command line, in words that Hydra's grammar can read; applying it twice changes nothing.

    Args:
        argument: As typed, `key=value`; others come back as they are.
        groups: Keys that choose files: their values are names.
        several: Whether commas separate the values of several runs (`--multirun`).
    """
    key, equals, value = argument.partition("=")
    if not equals or not re.fullmatch(r"[+~]{0,2}[\w./@:$-]+", key) or key.startswith("-"):
        return argument
    named = key.lstrip("+~").split("@")[0] in groups or key.startswith("hydra")
    if value[:1] in ("[", "{"):
        word = _container(value, named)
        return f"{key}={word if _parsed(word) else quoted(value)}"
    return f"{key}={_word(value, named, several)}"


def quoted(text: str) -> str:
    """A text as Hydra's grammar takes it for that text and nothing else."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    ending = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{chr(92) * ending}'"


def _parsed(word: str) -> Any:
    try:
        return _parser().parse_override(f"x={word}")
    except HydraException:
        return None


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def _word(text: str, named: bool, several: bool = False) -> str:
    """A single value: as it is, marked where its spelling would be lost, or quoted."""
    read = _parsed(text)
    if read is None:
        return quoted(text)
    if read.is_sweep_override():
        return text if several or named else quoted(SEVERAL + text)
    if not isinstance(read.value(), bool | int | float) or not re.fullmatch(r"[\w.+-]+", text.strip()):
        return text
    return quoted(text) if named else MARK + text.strip()


def _container(text: str, named: bool) -> str:
    """A list or a dictionary, its values and keys each as `_word`; where brackets do not match, all of it as a text."""
    text = text.strip()
    inner = _divided(text[1:-1], ",") if text[-1:] == {"[": "]", "{": "}"}.get(text[:1]) else None
    if inner is None:
        return quoted(text)
    if inner == [""]:
        return text
    if text[0] == "[":
        return f"[{','.join(_item(item, named) for item in inner)}]"
    pairs = [_divided(item, ":") or [item] for item in inner]
    if any(len(pair) < 2 for pair in pairs):
        return quoted(text)
    spelt = [_key(key) + ": " + _item(":".join(rest), named) for key, *rest in pairs]
    return f"{{{','.join(spelt)}}}"


def _item(text: str, named: bool) -> str:
    text = text.strip()
    return _container(text, named) if text[:1] in ("[", "{") else _word(text, named)


def _key(text: str) -> str:
    text = text.strip()
    if text[:1] in ("'", '"') and text[-1:] == text[:1]:
        return LETTERS + text[1:-1].encode().hex()
    read = _parsed(f"{{{text}: 1}}")
    if read is None:
        return LETTERS + text.encode().hex()
    return text if all(isinstance(key, str) for key in read.value()) else MARK + text


def _divided(text: str, at: str) -> list[str] | None:
    """The parts of a text between commas or colons that are in no bracket and no quotes; None if some stay open."""
    parts, depth, quote, before = [""], 0, "", ""
    for letter in text:
        if quote:
            quote = "" if letter == quote and before != "\\" else quote
        elif letter in "'\"" and not parts[-1].strip():
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        before = letter
        if letter == at and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return None if depth or quote else parts


class _Loader(get_yaml_loader()):  # type: ignore[misc]
    """Reads YAML as OmegaConf does, but marks numbers, true and false."""


for _tag in ("int", "float", "bool"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", lambda loader, node: MARK + node.value)


class MarkedConfigs(FileConfigSource):
    """The YAMLs of a user's folder."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Reads one; a file that is no YAML is named."""
        file = Path(self.path) / self._normalize_file_name(config_path)
        try:
            result = super().load_config(config_path)
            content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            place = f", line {mark.line + 1}" if mark else ""
            reason = getattr(error, "problem", None) or "it is not UTF-8 text"
            raise UserError(f"{file}{place} is no YAML: {' '.join(reason.split())}.") from error
        if isinstance(content, dict) and isinstance(result.config, DictConfig):
            check_names(content)
            check_calls(content if result.header.get("package") == "hydra" else content.get("hydra"))
            for key in {"defaults", "hydra"} & content.keys():
                content[key] = OmegaConf.to_container(result.config)[key]  # type: ignore[index,call-overload]
            result.config = OmegaConf.create(content)
        return result


Plugins.instance()  # registers Hydra's own sources first
SourcesRegistry.instance().types[MarkedConfigs.scheme()] = MarkedConfigs


def meant(cfg: DictConfig, typed: Sequence[str] = ()) -> DictConfig:
    """The configuration with every marked word as what takes it wants it.

    Args:
        cfg: As Hydra composed it.
        typed: The arguments that it was composed with, as `readable` made them.

    Raises:
        UserError: Commas where no text is wanted.
    """
    content = OmegaConf.to_container(cfg, resolve=False)
    raw = {key.lstrip("+~"): value for key, _, value in (word.partition("=") for word in typed)}
    bracketed = {key for key, value in raw.items() if value[:1] in ("[", "{")}
    if not _marked(content) and not bracketed:
        return cfg
    settled = OmegaConf.create(_Settling(content, raw, bracketed).of(content, Any, ""), flags={"allow_objects": True})
    OmegaConf.set_struct(settled, bool(OmegaConf.is_struct(cfg)))
    return settled


def _marked(content: Any) -> bool:
    """Whether a word within is marked."""
    if isinstance(content, dict):
        return any(_marked(value) or _marked(key) for key, value in content.items())
    if isinstance(content, list):
        return any(map(_marked, content))
    return isinstance(content, str) and content.startswith((MARK, SEVERAL, LETTERS))


@dataclass(frozen=True)
class _Settling:
    """Goes through a configuration and puts marked words right.

    Attributes:
        content: The whole of it.
        raw: What was typed for a key.
        bracketed: Keys for which a list or a dictionary was typed.
    """

    content: Any
    raw: Mapping[str, str]
    bracketed: Collection[str]

    def of(self, value: Any, wanted: Any, path: str) -> Any:
        """The value of a key, for what takes it."""
        kinds = _kinds(wanted)
        if isinstance(value, dict):
            if path in self.bracketed and TEXTS & kinds.keys() and not {Any, dict} & kinds.keys():
                return unmarked(self.raw[path])
            return self._items(value, kinds.get(dict, (Any, Any)), path)
        if isinstance(value, list):
            if path in self.bracketed and TEXTS & kinds.keys() and not {Any, list} & kinds.keys():
                return unmarked(self.raw[path])
            return [self._item(item, kinds.get(list, (Any,))[0]) for item in value]
        return self._word(value, kinds if wanted is not Any else _kinds(self._through(path)), path)

    def _items(self, value: dict[Any, Any], wanted: tuple[Any, Any], path: str) -> dict[Any, Any]:
        place = value.get("_target_")
        below = f"{path}." if path else ""
        concerned = _marked(value) or any(key.startswith(below) for key in self.bracketed)
        takes = _parameters(place) if isinstance(place, str) and concerned else {}
        return {
            self._word(key, _kinds(wanted[0]), path): self.of(
                item, takes.get(key, wanted[1]) if path else TOP.get(key, Any), f"{below}{key}"
            )
            for key, item in value.items()
        }

    def _item(self, item: Any, wanted: Any) -> Any:
        kinds = _kinds(wanted)
        return self.of(item, wanted, "-") if isinstance(item, dict | list) else self._word(item, kinds, "-")

    def _word(self, word: Any, kinds: Mapping[Any, Any], path: str) -> Any:
        if not _marked(word):
            return word
        if word.startswith(LETTERS):
            return bytes.fromhex(word.removeprefix(LETTERS)).decode()
        text = word.removeprefix(MARK).removeprefix(SEVERAL)
        wants_text = bool(TEXTS & kinds.keys())
        if word.startswith(SEVERAL):
            if wants_text and list not in kinds:
                return text
            raise UserError(f"`{path}={text}` has commas; for a list, type '{path}=[{text}]'.")
        value = yaml.load(text, Loader=get_yaml_loader())
        fits = Any in kinds or type(value) in kinds or (isinstance(value, int) and float in kinds)
        return value if fits or not wants_text else text

    def _through(self, path: str) -> Any:
        """What wants a value that other places of the configuration refer to."""
        return next(_users(self.content, f"${{{path}}}"), Any)


def _users(content: Any, reference: str) -> Iterator[Any]:
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if value == reference and isinstance(content.get("_target_"), str):
            yield _parameters(content["_target_"]).get(key, Any)
        yield from _users(value, reference)


def unmarked(text: str) -> str:
    """A text without marks, as it was typed."""
    return re.sub(f"{MARK}|{SEVERAL}", "", text)


def _parameters(place: str) -> dict[str, Any]:
    """What the function or class of an import path takes: annotations by name."""
    annotations = {name: parameter.annotation for name, parameter in parameters(named(place))[0].items()}
    return {
        name: Any if said is inspect.Parameter.empty or isinstance(said, str) else said
        for name, said in annotations.items()
    }


def _kinds(wanted: Any) -> dict[Any, tuple[Any, ...]]:
    """The types that an annotation admits; of lists and dictionaries with the types of what is in them."""
    origin = typing.get_origin(wanted)
    if origin is typing.Annotated:
        return _kinds(typing.get_args(wanted)[0])
    if origin is typing.Literal:
        return {type(choice): () for choice in typing.get_args(wanted)}
    if origin in (typing.Union, types.UnionType):
        return {kind: inside for option in typing.get_args(wanted) for kind, inside in _kinds(option).items()}
    inside = typing.get_args(wanted)
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return {dict: inside or (Any, Any)}
    if inspect.isclass(origin) and issubclass(origin, Collection):
        return {list: inside or (Any,)}
    if wanted in (list, tuple, Sequence):
        return {list: (Any,)}
    return {dict: (Any, Any)} if wanted in (dict, Mapping) else {wanted: ()}
