"""What an experiment is given to work with, what it is, and how it is run, recorded and logged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from neuronx.concepts.formula import parse
from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.progress import where_to_look
from neuronx.recording.trainer import make
from neuronx.report.evaluation import now, write_record
from neuronx.report.figures import write_figure
from neuronx.store.processes import is_first
from neuronx.tables.csv import read_csv, write_csv
from neuronx.targets.target import Target
from neuronx.types import Cell, Explanation, Method, Plain, RunLogger, Table, TrainerFactory, Unit, as_found

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Given:
    """What the command line brings, or who calls from Python.

    Attributes:
        trainer: Makes trainers.
        folder: Of the run; gets the experiment's files.
        targets: Networks by name.
        probe: The images.
        methods: Ways to explain, by name; the first one writes the captions where an experiment needs them.
    """

    trainer: TrainerFactory = make
    folder: Path = Path("results/python")
    targets: Mapping[str, Target] = field(default_factory=dict)
    probe: Probe | None = None
    methods: Mapping[str, Method] = field(default_factory=dict)

    def images(self, target: Target) -> Probe:
        """What a network is studied on."""
        from neuronx.data.latents import images_of

        if self.probe is None:
            raise UserError("This experiment looks at images: choose some with data=.")
        return images_of(target, self.probe)

    def captions(self, target: Target) -> dict[Unit, str]:
        """What the first method says makes each unit of a network fire; writes `captions_<target>.csv`.

        Terms with a negative weight, and what a formula negates, are left out: a unit that "-0.47 mammal" explains is
        no unit for mammals.
        """
        if not self.methods:
            raise UserError(
                "This experiment needs captions: choose who writes them with explain=, such as explain=milan."
            )
        method = next(iter(self.methods.values()))
        found = as_found(method.explain(target, self.images(target), self.trainer)).explanations
        said = {Unit(one.unit.layer, one.unit.index): one for one in found}
        lines = [(unit.layer, unit.index, str(explanation)) for unit, explanation in said.items()]
        self.write(write_csv, f"captions_{target.name}.csv", ("layer", "unit", "description"), lines)
        return {unit: fires_for(explanation) for unit, explanation in said.items()}

    def write(self, writer: Callable[..., object], name: str, *what: object) -> None:
        """Writes a file into the folder of the run, in the first process only."""
        if is_first():
            writer(self.folder / name, *what)

    def draw(self, figure: "Figure", name: str) -> None:
        """Writes a figure into the folder of the run as a page, in the first process only."""
        if is_first():
            write_figure(figure, self.folder / name)

    def one_target(self) -> Target:
        """The only network; UserError where there are more."""
        if len(self.targets) != 1:
            raise UserError(f"This experiment is about one network, not {len(self.targets)}: choose it with target=.")
        return next(iter(self.targets.values()))


def fires_for(explanation: Explanation) -> str:
    """The concepts of an explanation that raise the activation, separated by commas; "" for an inactive unit."""
    said: list[str] = []
    for concept, weight in explanation.terms:
        try:
            said += parse(concept).affirmed() if weight > 0 else ()
        except UserError:  # a sentence with an operator's word in it
            said.append(concept)
    return ", ".join(dict.fromkeys(said))


class Experiment(Protocol):
    """Something to find out."""

    def run(self, given: Given) -> str:
        """Finds it out, writes files into the folder of the run and returns the table."""
        ...


def run(
    experiment: Experiment, given: Given, config: str | None = None, loggers: Sequence[RunLogger] = (), **facts: Plain
) -> str:
    """Runs an experiment, prints what it found and where its files are; in the first process only.

    Args:
        experiment: What to find out.
        given: Networks, images and methods, and the folder that gets the experiment's files.
        config: The composed configuration as YAML.
        loggers: Get every table of the folder under the name of its file.
        facts: For the record of the run.

    Returns:
        The text printed.
    """
    text = experiment.run(given)
    if is_first():
        write_record(given.folder, config, finished=now(), **facts)
        found = tables(given.folder)
        for logger in loggers:
            logger.log_tables(found, given.folder)
        print(f"{text.rstrip()}\n\n{where_to_look(given.folder)}")
    return text


def tables(folder: Path) -> dict[str, Table]:
    """The tables (*.csv) of a folder by name, their numbers as numbers; those without rows too."""
    found: dict[str, Table] = {}
    for path in sorted(folder.glob("*.csv")):
        columns, rows = read_csv(path, may_be_empty=True)
        found[path.stem] = columns, [[_cell(text) for text in row.cells.values()] for row in rows]
    return found


def _cell(text: str) -> Cell:
    try:
        return float(text) if text else None
    except ValueError:
        return text
