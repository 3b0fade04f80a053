"""Your own network: a module, or a class or function by import path, with weights from a file."""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor, nn

from neuronx.errors import UserError, first_line, line_of, unknown
from neuronx.options import OptionsOf
from neuronx.store.given_file import given_file
from neuronx.store.named import check_callable, check_path
from neuronx.targets import dictionary as dictionaries
from neuronx.targets.calling import check_forward, input_channels, unwrapped
from neuronx.targets.layers import Layers, pooled_layers
from neuronx.targets.preprocess import transform_of
from neuronx.targets.target import Target
from neuronx.targets.weights import fill, weights_file


def load(
    model: str | nn.Module | Callable[..., nn.Module],
    weights: str | Path | None = None,
    transform: str | Mapping[str, Any] | Callable[..., Tensor] | None = "imagenet",
    layers: Layers = "",
    pool: str = "avg",
    classes: str | Path | Sequence[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    name: str | None = None,
    dictionary: str | Path | None = None,
    dictionary_kind: str | None = None,
    **options: Annotated[Any, OptionsOf(Target)],
) -> Target:
    """Makes a target of a network of your own.

    Args:
        model: A module; or what makes one, a callable or its import path (`mynets.ResNet20`, looked up from the working
            directory too).
        weights: A safetensors file, or a torch file of plain tensors, or the URL of one, loaded strictly; a
            `state_dict` within and `module.` before the names are undone, as whatever else trainers put there. None
            leaves the module as it was made.
        transform: A name of `TRANSFORMS`, the fields of a `Preprocess`, or a callable for pictures and uint8 batches;
            None is `none`, pictures in [0, 1].
        layers: Asked for: one, several, or layer -> pooling; "" is the network's output.
        pool: For layers without a pooling of their own.
        classes: Names of the outputs: `imagenet`, a file with one name a line, or the names.
        arguments: For the callable, such as `{num_classes: 10}`.
        name: In tables; by default the last part of the import path, or the class.
        dictionary: A file of directions or of a sparse autoencoder, or the folder of one, whose latents are units.
        dictionary_kind: The library that wrote it: saev, saelens, prisma, dictionary_learning, overcomplete, or plain;
            by default what the file and the JSON beside it say.
        options: `dictionary_layer`, `prefix_tokens`, `channels`, `masks` and `input_size` of `Target`.

    Raises:
        UserError: What cannot be imported or called, weights that do not fit, or a layer that does not exist.
    """
    module = module_of(model, weights, arguments, f"or set target.{name or 'custom'}.weights=FILE")
    return target(
        name or called(model), module, transform, classes, layers, pool, dictionary, dictionary_kind, **options
    )


def module_of(
    model: str | nn.Module | Callable[..., nn.Module],
    weights: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    hint: str = "",
) -> nn.Module:
    """The module itself, made and filled as `load` says; `hint` ends the message when a download fails."""
    if isinstance(model, nn.Module):
        module = model
    else:
        with _working_directory():
            maker = _imported(model) if isinstance(model, str) else model
            module = make(maker, arguments or {}, f"model={model}" if isinstance(model, str) else called(model))
    return module if weights is None else fill(module, weights_file(weights, hint))


def called(model: str | nn.Module | Callable[..., nn.Module]) -> str:
    """The usual name of a network: the last part of its import path, or its class or function."""
    if isinstance(model, str):
        return model.rsplit(".", 1)[-1]
    return type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "network")


def target(
    name: str,
    module: nn.Module,
    transform: str | Mapping[str, Any] | Callable[..., Tensor] | None,
    classes: str | Path | Sequence[str] | None = None,
    layers: Layers = "",
    pool: str = "avg",
    dictionary: str | Path | None = None,
    dictionary_kind: str | None = None,
    **options: Annotated[Any, OptionsOf(Target)],
) -> Target:
    """A target of a module that is ready; all loaders end here, with the options of `load`."""
    if not name.strip("."):
        raise UserError(f"A network cannot be called `{name}`: files are named after it; set name=.")
    latents = options.get("latents")
    module = unwrapped(module)
    check_forward(module, name, 1 if latents is None else latents.count)
    return Target(
        name=name,
        module=module,
        transform=transform_of(transform, input_channels(module) if latents is None else None),
        layers=pooled_layers(layers, pool),
        class_names=class_names_of(classes),
        dictionary=None if dictionary is None else dictionaries.load(dictionary, dictionary_kind),
        **options,
    )


def class_names_of(classes: str | Path | Sequence[str] | None) -> tuple[str, ...]:
    """The names, in the order of the outputs.

    Args:
        classes: `imagenet`, a text file with one name a line, the names themselves, or None for none.

    Raises:
        UserError: No such file, or an empty line within it, which would shift all names after it.
    """
    if classes is None:
        return ()
    if classes == "imagenet":
        from torchvision.models import ResNet18_Weights

        return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    if not isinstance(classes, str | Path):
        return tuple(str(name) for name in classes)
    path = Path(classes).expanduser()
    if not path.is_file():
        raise UserError(f"There is no file of class names {path}; write `imagenet`, a file, or a list of names.")
    given_file(path, "file of class names")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no text in UTF-8 with one class name a line ({first_line(error)}).") from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise UserError(f"{path}, line {names.index('') + 1} is blank; one class name a line is needed.")
    return tuple(names)


def make(maker: Callable[..., Any], arguments: Mapping[str, Any], name: str) -> nn.Module:
    """The network that a class or function of somebody else's makes.

    Raises:
        UserError: It takes other arguments, raises something, or makes no module.
    """
    if not callable(maker):
        raise UserError(
            f"{name} is of type {type(maker).__name__}; a class or function that makes a network is needed."
        )
    with suppress(ValueError):  # of what is not written in Python
        signature = inspect.signature(maker)
        try:
            signature.bind(**arguments)
        except TypeError as error:
            takes = str(signature).partition(" -> ")[0]
            raise UserError(f"{name}{takes} cannot be called with {dict(arguments)}; set `arguments`.") from error
    try:
        module = maker(**arguments)
    except UserError:
        raise
    except Exception as error:
        given = f" with arguments {dict(arguments)}" if arguments else ""
        raise UserError(f"{name}{given} raises: {first_line(error)}{line_of(error)}.") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"{name} makes a {type(module).__name__}; a torch.nn.Module is needed.")
    return module


def _imported(path: str) -> Callable[..., nn.Module]:
    package, _, attribute = path.rpartition(".")
    if not package or not all(part.isidentifier() for part in path.split(".")):
        raise UserError(f"model={path} has no module and name: write it as an import path, as mynets.ResNet20.")
    check_path(path)
    try:
        found = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f"model={path}: there is no module `{error.name}`, neither installed nor in {Path.cwd()}."
        ) from error
    except Exception as error:  # whatever a module does when it is imported
        raise UserError(f"model={path}: {package} cannot be imported: {first_line(error)}{line_of(error)}.") from error
    if not hasattr(found, attribute):
        raise unknown(f"name in {package}", attribute, [known for known in vars(found) if not known.startswith("_")])
    made = getattr(found, attribute)
    check_callable(made, path)
    return made


@contextmanager
def _working_directory() -> Iterator[None]:
    """Lets imports find modules of the working directory; an installed command does not look there by itself."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
