"""The record of a run, `run.json` and `config.yaml`: the only files of a run that hold times and machines."""

import json
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from neuronx import __version__
from neuronx.store.atomic import write_atomic
from neuronx.types import Plain

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "numpy",
    "open_clip_torch",
    "timm",
    "transformers",
    "hydra-core",
    "glm-saga",
)


def versions() -> dict[str, str]:
    """The versions of neuronx, Python and the packages that results depend on, as far as they are installed."""
    found = {"neuronx": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The time, to the second, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def write_record(folder: str | Path, config: str | None = None, **facts: Plain) -> Path:
    """Writes `run.json`, and `config.yaml` where a configuration is given; returns the path of the former.

    Args:
        folder: The run's folder.
        config: The composed configuration as YAML.
        facts: What else to record, such as `seed=0`, `fingerprints={"data": ...}`, `started=...`, `finished=...`.
    """
    folder = Path(folder)
    if config is not None:
        write_atomic(folder / "config.yaml", config.encode())
    record: Mapping[str, Plain] = {
        "command": shlex.join(sys.argv),
        "versions": versions(),
        "machine": platform.platform(),
        **facts,
    }
    return write_atomic(folder / "run.json", (json.dumps(record, indent=1) + "\n").encode())
