"""Networks of torch.hub: repositories on GitHub that bring their own code, which runs on your machine."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from neuronx.errors import UserError
from neuronx.options import OptionsOf
from neuronx.store.download import check_reachable
from neuronx.targets.custom import target
from neuronx.targets.target import Target
from neuronx.targets.weights import fill, plain_tensors_only, weights_file

log = logging.getLogger("neuronx")


def load(
    repository: str,
    model: str,
    trust: bool = False,
    weights: str | Path | None = None,
    transform: str | Mapping[str, Any] | Callable[..., Tensor] | None = "imagenet",
    classes: str | Path | Sequence[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    name: str | None = None,
    **options: Annotated[Any, OptionsOf(target)],
) -> Target:
    """Makes a target of a network of torch.hub.

    Args:
        repository: `owner/name` on GitHub, or `owner/name:branch`; or the folder of a clone.
        model: Name of the entry in its hubconf.py, such as `cifar100_vgg16_bn`.
        trust: Must be true: the repository's code runs with your rights.
        weights: A file of your own instead of the pretrained weights that the entry fetches.
        transform: As `neuronx.targets.custom.load` takes it.
        classes: Names of the outputs.
        arguments: Of the entry; `{pretrained: true}` by default, none with weights of your own.
        name: In tables; the entry's by default.
        options: `layers`, `pool` and the other options of `neuronx.targets.custom.load`.

    Raises:
        UserError: Without trust, without a connection, for an entry that does not exist or fails, or an unknown layer.
    """
    if not trust:
        raise UserError(f"torch.hub runs the code of {repository} on this machine; if you trust it, set trust=true.")
    log.warning("running the code of %s (torch.hub)", repository)
    settings = dict(arguments) if arguments is not None else {} if weights else {"pretrained": True}
    module = _entry(repository, model, settings)
    if not isinstance(module, nn.Module):
        raise UserError(f"{model} of {repository} gives a {type(module).__name__}; a torch.nn.Module is needed.")
    if weights is not None:
        fill(module, weights_file(weights))
    return target(name or model, module, transform, classes, **options)


def _entry(repository: str, model: str, settings: Mapping[str, Any]) -> Any:
    source = "local" if Path(repository).is_dir() else "github"
    owner_and_name = repository.split(":")[0].replace("/", "_")
    if source == "github" and not list(Path(torch.hub.get_dir()).glob(f"{owner_and_name}_*")):
        check_reachable("https://github.com", f"set target.hub.repository to the folder of a clone of {repository}")
    try:
        with plain_tensors_only():
            return torch.hub.load(repository, model, source=source, trust_repo=True, **settings)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{model} of {repository} with {dict(settings)} cannot be loaded: {reason}") from error
