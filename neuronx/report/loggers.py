"""Where a run is logged: tables in its folder, and Weights & Biases.

Each logger has one verb for evaluations, `log(evaluation, folder)`, one for other tables, `log_tables(tables, folder)`,
and `lightning(folder)`, which gives the Lightning logger of the same kind for training.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from neuronx.errors import unknown
from neuronx.options import NotNegative
from neuronx.report.evaluation import Evaluation, LeaderboardRow
from neuronx.report.figures import histogram_counts
from neuronx.report.purity import ALIGNMENT, PURITY
from neuronx.scoring.rows import is_method
from neuronx.types import Score, Table

if TYPE_CHECKING:
    from lightning.pytorch.loggers import CSVLogger, WandbLogger

log = logging.getLogger("neuronx")

MODES = ("offline", "online", "disabled")
PICTURES = 200
"""At most so many pictures of a run are sent."""


@runtime_checkable
class TakesTables(Protocol):
    """A Lightning logger that takes tables, as that of W&B does."""

    def log_table(self, key: str, columns: list[str], data: list[list[Any]]) -> None:
        """Logs a table."""
        ...


@runtime_checkable
class TakesPictures(Protocol):
    """A Lightning logger that takes pictures, as that of W&B does."""

    def log_image(self, key: str, images: list[Any]) -> None:
        """Logs pictures, or the paths of their files."""
        ...


@dataclass(frozen=True)
class CsvLog:
    """Metrics of training as a table. The tables of an evaluation are in the run's folder whatever the loggers."""

    images: ClassVar[bool] = False

    def log(self, evaluation: Evaluation, folder: str | Path) -> None:
        """Adds nothing to what every evaluation writes."""

    def log_tables(self, tables: Mapping[str, Table], folder: str | Path) -> None:
        """Adds nothing to what every experiment writes."""

    def lightning(self, folder: str | Path) -> "CSVLogger":
        """Writes the metrics of training to `training/metrics.csv`."""
        from lightning.pytorch.loggers import CSVLogger

        return CSVLogger(folder, name="training", version="")


@dataclass(frozen=True)
class WandbLog:
    """Weights & Biases. Offline unless asked; a run never waits for it nor fails because of it.

    Attributes:
        project: Name of the project.
        entity: Whose project; the account's default where None.
        mode: offline writes into the run's folder, for `wandb sync` later; online sends; disabled does neither.
        images: Whether to send pictures too; otherwise numbers and the words of explanations only.
        timeout: Seconds to wait for the server at the start and at the end.

    Raises:
        UserError: For an unknown mode.
    """

    project: str = "neuronx"
    entity: str | None = None
    mode: str = "offline"
    images: bool = False
    timeout: NotNegative = 15.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("mode of logger.wandb", self.mode, MODES)

    def log(self, evaluation: Evaluation, folder: str | Path) -> None:
        """Logs means as summary, the tables `leaderboard` and `units`, and a histogram of scores for each method."""
        folder = Path(folder)

        def send(run: Any) -> None:
            run.summary.update({key: value for key, value in evaluation.summary().items() if not math.isnan(value)})
            run.log(content(evaluation))
            if self.images:
                run.log(pictures(folder))

        self._send(send, folder)

    def log_tables(self, tables: Mapping[str, Table], folder: str | Path) -> None:
        """Logs tables by name."""

        def send(run: Any) -> None:
            run.log({name: _table(columns, list(rows)) for name, (columns, rows) in tables.items()})

        self._send(send, Path(folder))

    def lightning(self, folder: str | Path) -> "WandbLogger":
        """Logs the metrics of training; weights are never sent."""
        from lightning.pytorch.loggers import WandbLogger

        from neuronx.store.processes import is_first

        return WandbLogger(
            project=self.project,
            save_dir=folder,
            log_model=False,
            offline=self.mode != "online",
            experiment=self._start(Path(folder)) if is_first() else None,
        )

    def _send(self, send: Callable[[Any], None], folder: Path) -> None:
        try:
            run = self._start(folder)
            send(run)
            run.finish()
        except Exception as error:  # whatever is wrong there, the run's own files are whole
            log.warning("W&B was left out: %s", _line(error))

    def _start(self, folder: Path) -> Any:
        """Starts a run in the mode asked for or, where that cannot be had, in a humbler one."""
        mode = self.mode
        if mode == "online" and not _has_key():
            log.warning("W&B has no key (`wandb login` sets it); logging offline to %s", folder / "wandb")
            mode = "offline"
        for attempt in dict.fromkeys((mode, "offline", "disabled")):
            try:
                return self._init(attempt, folder)
            except Exception as error:  # wandb raises many kinds, and none may end a run
                log.warning("W&B cannot be used %s: %s", attempt, _line(error))
        raise RuntimeError("W&B cannot even be disabled")

    def _init(self, mode: Any, folder: Path) -> Any:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        wanted: dict[str, Any] = {
            "silent": True,
            "console": "off",
            "init_timeout": self.timeout,
            "finish_timeout": self.timeout,
            # Numbers only: nothing about the machine, its folders or the code.
            "disable_code": True,
            "disable_git": True,
            "x_disable_stats": True,
            "x_disable_meta": True,
            "x_disable_machine_info": True,
            "x_save_requirements": False,
        }
        known = getattr(wandb.Settings, "model_fields", wanted)
        settings = wandb.Settings(**{name: value for name, value in wanted.items() if name in known})
        return wandb.init(
            project=self.project, entity=self.entity, mode=mode, dir=str(folder), name=folder.name, settings=settings
        )


def content(evaluation: Evaluation) -> dict[str, Any]:
    """The tables and histograms of an evaluation as W&B takes them; the table `units` has no floors and no ceiling."""
    import wandb

    found: dict[str, Any] = {}
    board = [field.name for field in fields(LeaderboardRow)]
    found["leaderboard"] = _table(board, [[getattr(row, name) for name in board] for row in evaluation.leaderboard])
    methods = [one for one in evaluation.scores if is_method(one.method)]
    columns = [field.name for field in fields(Score)]
    found["units"] = _table(columns, [[_plain(getattr(one, name)) for name in columns] for one in methods])
    for name in (PURITY, ALIGNMENT):
        if name in evaluation.tables:
            columns_of_it, rows = evaluation.tables[name]
            found[name.removesuffix(".csv")] = _table(columns_of_it, list(rows))
    for key, values in by_key(methods).items():
        counts, edges = histogram_counts(values, min(values), max(values))
        found[key] = wandb.Histogram(np_histogram=(counts, edges))
    return found


def by_key(scores: Sequence[Score]) -> dict[str, list[float]]:
    """The values of scored units as `histogram/<score>/<target>/<layer>/<method>/<judge>`."""
    values: dict[str, list[float]] = {}
    for one in scores:
        if one.status == "ok":
            key = f"histogram/{one.score}/{one.target}/{one.unit.layer}/{one.method}/{one.judge}"
            values.setdefault(key, []).append(one.value)
    return values


def pictures(folder: Path) -> dict[str, Any]:
    """The pictures of a run as W&B takes them."""
    import wandb

    return {key: wandb.Image(str(path)) for key, path in found_pictures(folder).items()}


def found_pictures(folder: Path) -> dict[str, Path]:
    """The pictures (*.png) in a run's folder by their place in it, sheets of whole layers before those of single units.

    W&B's own are left out, and there are `PICTURES` at most.
    """
    places = [path.relative_to(folder) for path in folder.rglob("*.png")]
    mine = sorted(
        (place for place in places if "wandb" not in place.parts), key=lambda place: (len(place.parts), place)
    )
    keys = [place.as_posix().removeprefix("pictures/") for place in mine[:PICTURES]]
    return {f"pictures/{key}": folder / place for key, place in zip(keys, mine, strict=False)}


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    import wandb

    # NaN is shown as nothing; without mixed types a column with both would be refused.
    data: list[Any] = [[None if cell != cell else cell for cell in row] for row in rows]
    return wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float)) else str(value)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _has_key() -> bool:
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # before wandb had `prompt`
        return bool(wandb.api.api_key)
