"""The folder of a run, which overwrites nothing that it did not write itself."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from neuronx.errors import UserError
from neuronx.store.cache import write_atomic

RECORD = "config.yaml"
"""Tells whose a folder is: the composed configuration of the run that writes into it."""


def claim(folder: Path, config: str) -> None:
    """Makes the folder of a run, and writes into it whose it is.

    Args:
        folder: Of the run.
        config: The composed configuration as YAML. A run that was stopped may go on in its own folder.

    Raises:
        UserError: It cannot be written, or holds files of the user's or of another run.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if held and not _is_same(folder / RECORD, config):
            more = f" and {len(held) - 3} more" if len(held) > 3 else ""
            raise UserError(
                f"hydra.run.dir={folder} holds files already ({', '.join(held[:3])}{more}), and a run overwrites "
                "nothing that it did not write: name a new folder. Only the same command may go on in its own."
            )
        write_atomic(folder / RECORD, config.encode())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"hydra.run.dir={folder} cannot be written: {reason}; name another folder.") from error


def leave(folder: Path) -> None:
    """Removes the folder of a run that wrote nothing, such as show= or a mistake."""
    with suppress(OSError):
        if [path.name for path in folder.iterdir()] == [RECORD]:
            (folder / RECORD).unlink()
        folder.rmdir()


def _is_same(record: Path, config: str) -> bool:
    with suppress(OSError, yaml.YAMLError, UnicodeDecodeError):
        return _kept(yaml.safe_load(record.read_text())) == _kept(yaml.safe_load(config))
    return False


def _kept(config: Any) -> Any:
    """What makes two runs one: all but the checkpoint that training goes on from."""
    return {key: value for key, value in config.items() if key != "ckpt_path"} if isinstance(config, dict) else config
