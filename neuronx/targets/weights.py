"""Reading weights, as any trainer saved them, into a module; nothing in a file runs."""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neuronx.errors import UserError, first_line
from neuronx.store.cache import data_root
from neuronx.store.download import fetch
from neuronx.store.given_file import given_file
from neuronx.store.torch_file import Foreign, ForeignArray, read_torch_file

log = logging.getLogger(__name__)

NAMED = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module", "generator")
"""Where trainers put the weights; of several in one file, the first of these counts, and averages before all."""
AVERAGE = re.compile(r"(^|[._])(ema|swa|averaged?)([._]|$)")
"""In the names of weights that were averaged over training; trainers measure and publish these."""
OTHERS = re.compile(r"optim|scheduler|scaler|callbacks|loops|hyper_?param|rng|history|config|args", re.IGNORECASE)
"""In the names of what is no network's weights."""
WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
"""Names that wrappers of a module add to those of its tensors: compiled, sharded, recomputed, wrapped by Lightning."""


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, as some place of a file has them.

    Attributes:
        place: Keys that lead there, joined by dots; "" for the file itself.
        tensors: By their names in the file.
    """

    place: str
    tensors: dict[str, Tensor]


def state_dicts(path: str | Path) -> list[StateDict]:
    """All tensors by name that lie in a file, the likeliest weights first; optimisers are left out.

    Raises:
        UserError: As `read_torch_file`, or a file without tensors by name.
    """
    path = given_file(path, "weights file")
    found = list(_within(_read(path), "", set()))
    if not found:
        raise UserError(f"{path} holds no tensors by name; a state dict is needed.")
    return sorted(found, key=lambda state: _rank(state.place))


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a file by name.

    They may lie anywhere in what a trainer saved (`state_dict`, `model`, an average, ...), and all their names may
    start with what data-parallel training or compilation puts there; both are undone.

    Raises:
        UserError: As `state_dicts`.
    """
    first, *more = state_dicts(path)
    if more:
        log.info("%s: taking %s, not %s", path, first.place or "its tensors", ", ".join(state.place for state in more))
    tensors = {WRAPPERS.sub("", name): value for name, value in first.tensors.items() if name != "n_averaged"}
    while tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def fill(module: nn.Module, path: str | Path) -> nn.Module:
    """Loads a file into a module, every tensor of the module, and returns the module.

    Of all state dicts in the file, and of all beginnings that their names may have (`module.`, a LightningModule's
    `model.`), the one is taken that has exactly the module's names; an average is taken before what it is of.

    Raises:
        UserError: As `state_dicts`; names or shapes differ; or several fit alike.
    """
    found = state_dicts(path)
    own = {WRAPPERS.sub("", name): value for name, value in module.state_dict().items()}
    if own and all(name.startswith("module.") for name in own):
        own = {name.removeprefix("module."): value for name, value in own.items()}
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    fits = [
        (_rank(f"{state.place}.{prefix}"), state.place, prefix, part)
        for state in found
        for prefix, part in _parts(state.tensors, own)
        if needed <= part.keys() <= own.keys() and not _misshapen(part, own)
    ]
    if not fits:
        _, state, part = max(
            ((len(needed & part.keys()), state, part) for state in found for _, part in _parts(state.tensors, own)),
            key=lambda option: option[0],
        )
        raise _unlike(path, module, state, part, own)
    best = min(fits, key=lambda option: option[0])
    places = [f"{place}{'.' * bool(place and prefix)}{prefix}" for _, place, prefix, _ in fits]
    chosen = places[fits.index(best)]
    if len(fits) > 1:
        if [rank for rank, *_ in fits].count(best[0]) > 1:
            raise UserError(
                f"{path} holds this network {len(fits)} times: {', '.join(places)}; save the one to be read."
            )
        log.warning("%s holds %s: taking %s", path, ", ".join(places), chosen)
    part = best[3]
    given = {name: WRAPPERS.sub("", name) for name in module.state_dict()}
    shorter = {name: short if short in own else short.removeprefix("module.") for name, short in given.items()}
    module.load_state_dict({name: part[short] for name, short in shorter.items() if short in part}, strict=False)
    return module


def _rank(place: str) -> tuple[bool, int]:
    keys = [key for key in NAMED if key in place.split(".")]
    return not AVERAGE.search(place), NAMED.index(keys[0]) if keys else len(NAMED) * bool(place)


def _within(content: Any, place: str, seen: set[int], depth: int = 0) -> Iterator[StateDict]:
    """Every state dict in nested dictionaries, and in networks that were saved whole."""
    if id(content) in seen or depth > 6:
        return
    seen.add(id(content))
    if isinstance(content, Foreign) and isinstance(content.state, Mapping):
        whole = {name: value for name, value in _of_module(content, set())}
        if whole:
            yield StateDict(place, whole)
            return
        content = {**content.state, **content}
    if not isinstance(content, Mapping):
        return
    tensors = {
        str(name): value for name, value in ((k, _as_tensor(v)) for k, v in content.items()) if value is not None
    }
    inner = [
        state
        for name, value in content.items()
        if isinstance(value, Mapping) and not OTHERS.search(str(name))
        for state in _within(value, f"{place}.{name}".removeprefix("."), seen, depth + 1)
    ]
    # A number beside the weights, such as an accuracy, is no weight.
    if tensors and not (inner and all(value.numel() == 1 for value in tensors.values())):
        yield StateDict(place, tensors)
    yield from inner


def _of_module(module: Foreign, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a module that was pickled whole, by the names of its state dict."""
    state = module.state
    if id(module) in seen or not isinstance(state, Mapping):
        return
    seen.add(id(module))
    left_out = state.get("_non_persistent_buffers_set")
    left_out = getattr(left_out, "listed", left_out) or ()
    for kind in ("_parameters", "_buffers"):
        for name, value in (state.get(kind) or {}).items():
            if isinstance(value, Tensor) and not (kind == "_buffers" and name in left_out):
                yield str(name), value
    for name, child in (state.get("_modules") or {}).items():
        if isinstance(child, Foreign):
            yield from ((f"{name}.{inner}", value) for inner, value in _of_module(child, seen))


def _as_tensor(value: Any) -> Tensor | None:
    return value.tensor if isinstance(value, ForeignArray) else value if isinstance(value, Tensor) else None


def _parts(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[tuple[str, dict[str, Tensor]]]:
    """The tensors below each beginning that some names share with the network's, without it; "" always counts."""
    names = {WRAPPERS.sub("", name): value for name, value in tensors.items()}
    starts = {
        name[:at] for name in names for at in (0, *(dot.end() for dot in re.finditer(r"\.", name))) if name[at:] in own
    }
    return [
        (start, {name.removeprefix(start): value for name, value in names.items() if name.startswith(start)})
        for start in sorted(starts | {""})
    ]


def _misshapen(part: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    wrong = []
    for name, value in part.items():
        mine = own.get(name)
        if mine is None or is_lazy(mine):
            continue
        if value.shape != mine.shape:
            wrong.append(f"{name} has shape {tuple(value.shape)}, not {tuple(mine.shape)}")
        elif (value.is_complex(), value.is_floating_point()) != (mine.is_complex(), mine.is_floating_point()):
            kinds = (str(tensor.dtype).removeprefix("torch.") for tensor in (value, mine))
            wrong.append("{} is of {}, not {}".format(name, *kinds))
    return wrong


def _unlike(
    path: str | Path, module: nn.Module, state: StateDict, part: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> UserError:
    missing = [name for name in own if name not in part and not name.endswith("num_batches_tracked")]
    wrong = [f"{name} is missing" for name in missing]
    wrong += [f"{name} is not a part of it" for name in part if name not in own]
    differ = f"{path} does not fit {type(module).__name__}: {_some(wrong + _misshapen(part, own))}."
    if not wrong:
        return UserError(differ)
    place = f" (in {state.place})" if state.place else ""
    names = f"The file's names{place}: {_some(list(state.tensors), ', ')}; the network's: {_some(list(own), ', ')}."
    return UserError(f"{differ} {names}")


def _some(names: Sequence[str], between: str = "; ") -> str:
    more = f", and {len(names) - 3} more" if len(names) > 3 else ""
    return between.join(name[:80] for name in names[:3]) + more


def weights_file(weights: str | Path, hint: str = "") -> Path:
    """The file itself, or the download of a URL into the folder of data.

    By torch's convention a file name may end in `-` and the first digits of its sha256; they are checked then.

    Raises:
        UserError: As `fetch`.
    """
    if not re.match(r"https?://", str(weights)):
        return Path(weights).expanduser()
    name = str(weights).split("?")[0].rsplit("/", 1)[-1]
    return fetch(str(weights), data_root() / "weights" / name, sha256=hash_in(name), hint=hint)


def hash_in(name: str) -> str | None:
    """The digits of a sha256 in a file name such as `resnet50-0676ba61.pth`; None where there are none."""
    match = re.search(r"-([0-9a-f]{8,64})\.", name)
    return match[1] if match else None


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Sets environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def plain_tensors_only() -> AbstractContextManager[None]:
    """Within it no library's `torch.load` unpickles code, even where the library asks for that."""
    return environment(TORCH_FORCE_WEIGHTS_ONLY_LOAD="1")


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(10)
    if path.suffix != ".safetensors" and (head[8:9] != b"{" or head[:1] == b"{"):
        return read_torch_file(path)
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # safetensors fails in its own ways on a damaged file
        raise UserError(f"{path} cannot be read as weights ({first_line(error)}); it is damaged.") from error
