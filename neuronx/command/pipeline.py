"""The main job: explain the units of networks, score the explanations, write what was found."""

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronx.command.attempts import Attempts
from neuronx.concepts.seen import as_seen_by
from neuronx.errors import Unsuitable, UserError, unknown
from neuronx.store.processes import is_first
from neuronx.tables.explanations import ExplanationFile, by_method, read_files
from neuronx.types import (
    Explanation,
    Found,
    Judge,
    Method,
    Needs,
    PartSamples,
    Plain,
    RunLogger,
    Score,
    Scorer,
    Scores,
    Table,
    TrainerFactory,
    WordList,
    as_found,
    check_suits,
    encoders_of,
    unsplit,
)

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.report.evaluation import Activity, Evaluation
    from neuronx.scoring.stored import Stored
    from neuronx.targets.target import Target

log = logging.getLogger(__name__)


def evaluate(
    targets: "Mapping[str, Target]",
    probe: "Probe",
    methods: Mapping[str, Method],
    given: Sequence[ExplanationFile],
    sims: Mapping[str, Scorer],
    judges: Sequence[Judge],
    words: WordList,
    trainer: TrainerFactory,
    seed: int,
    optional: bool = False,
    attempts: Attempts | None = None,
) -> "Evaluation":
    """Explains every target with every method, adds the explanations given, and scores all of them on the test images.

    Args:
        targets: Networks by name, each with the layers and units asked for.
        probe: The images; methods see train and val, scores see test.
        methods: By name.
        given: Explanations read from files.
        sims: Ways to score, by name; empty explains only.
        judges: Who decides which concepts an image shows.
        words: The word list that random explanations and the ceiling draw from.
        trainer: Makes trainers.
        seed: Of the bootstrap intervals.
        optional: Leave out, with a warning, methods that these images, networks or layers do not suit, if others are
            left.
        attempts: Runs the parts, and keeps which of them failed after others were done.

    Raises:
        UserError: When a part cannot work on these pictures and networks, a judge cannot judge these pictures or
            methods, or files are not about the targets' layers.
    """
    from neuronx.data.latents import images_of
    from neuronx.recording.record import record
    from neuronx.report.evaluation import Evaluation, activity
    from neuronx.scoring.compare import agreement, check_judge, compare

    attempts = attempts or Attempts()
    pictures = {name: images_of(target, probe) for name, target in targets.items()}
    for judge, images in itertools.product(judges, pictures.values()):
        check_judge(judge, images, ((method, *encoders_of(how)) for method, how in methods.items()))
    explanations: dict[tuple[str, str], Sequence[Explanation]] = {}
    scores: list[Score] = []
    dead: list[Activity] = []
    tables: dict[str, Table] = {}
    samples: list[PartSamples] = []
    from_files = {}
    for name, target in targets.items():
        for file in about(given, name, list(targets)):
            file.check(len(pictures[name]), {row.name: row.units for row in target.layer_table(layers=target.layers)})
        from_files[name] = of_target(given, name, target, list(targets))
        for part in [*sims.values(), *(() if optional else methods.values())]:
            if isinstance(part, Needs):
                part.needs(target, pictures[name])
    for name, target in targets.items():
        images = pictures[name]
        found = explain(methods, target, images, trainer, optional, attempts)
        explained = {method: said.explanations for method, said in found.items()}
        explained |= from_files[name]
        explanations |= {(name, method): said for method, said in explained.items()}
        split = [said.target for said in found.values() if said.target is not None]
        scored = score(sims, judges, explained, [target, *split][-1], images, words, trainer, attempts)
        results: list[Found | Scores] = [*found.values(), *scored]
        for more in results:
            tables = joined(tables, more.tables)
            # References that a method gives with its names are shown rather than those of a scorer.
            shown = {sample.target for sample in samples} if isinstance(more, Scores) else ()
            samples += [sample for sample in more.samples if sample.target not in shown]
        scores += [row for rows in scored for row in rows.rows]
        if methods or sims:
            dead += [activity(name, recorded) for recorded in record(target, images, trainer).values()]
    return Evaluation(
        explanations=explanations,
        scores=scores,
        comparisons=compare(scores, seed=seed),
        agreement=agreement(scores) if len(judges) > 1 else [],
        activity=dead,
        tables=tables,
        samples=samples,
    )


def explain(
    methods: Mapping[str, Method],
    target: "Target",
    images: "Probe",
    trainer: TrainerFactory,
    optional: bool = False,
    attempts: Attempts | None = None,
) -> dict[str, Found]:
    """What each method says of the units asked for of one network, by the method's name in tables."""
    explained: dict[str, Found] = {}
    attempts = attempts or Attempts()
    for name, method in methods.items():
        log.info("%s: explaining %s by %s", target.name, ", ".join(target.layers), name)
        work = partial(_found, name, method, target, images, trainer, optional)
        found, reasons = attempts.run(f"{name} on {target.name}", work) or (None, {})
        if found is None and name == list(methods)[-1] and not explained and reasons:
            raise next(iter(reasons.values()))
        for layer, reason in reasons.items():
            where = "" if found is None else f" on `{layer}`"
            log.warning("%s is left out for %s%s. %s", name, target.name, where, reason)
            if found is None:
                break
        if found is not None:
            explained[found.name] = replace(found, explanations=of_units(found.explanations, target))
    return explained


def _found(
    name: str, method: Method, target: "Target", images: "Probe", trainer: TrainerFactory, optional: bool
) -> tuple[Found | None, dict[str, Unsuitable]]:
    """What a method says of a network, and why not of some layers; an optional one is tried layer by layer then."""
    try:
        if optional:
            check_suits(method, images)
        return as_found(method.explain(target, images, trainer), name), {}
    except Unsuitable as reason:
        if not optional:
            raise
        if len(target.layers) == 1:
            return None, dict.fromkeys(target.layers, reason)
    found: Found | None = None
    reasons: dict[str, Unsuitable] = {}
    for layer, pool in target.layers.items():
        more, why = _found(name, method, replace(target, layers={layer: pool}), images, trainer, optional)
        reasons |= why
        if more is not None and found is not None:
            explanations, samples = [*found.explanations, *more.explanations], [*found.samples, *more.samples]
            more = replace(more, explanations=explanations, tables=joined(found.tables, more.tables), samples=samples)
        found = more or found
    return found, reasons


def score(
    sims: Mapping[str, Scorer],
    judges: Sequence[Judge],
    explained: Mapping[str, Sequence[Explanation]],
    target: "Target",
    images: "Probe",
    words: WordList | None,
    trainer: TrainerFactory,
    attempts: Attempts | None = None,
) -> list[Scores]:
    """What each way to score gives by each judge, for the explanations of one network by method."""
    from neuronx.concepts.joined import fair
    from neuronx.scoring.compare import check_judge
    from neuronx.scoring.panel import in_one_pass

    given = [one for explanations in explained.values() for one in explanations]
    judges = [fair(judge, images, given) for judge in judges]
    for judge in judges:
        check_judge(judge, images, (one.made_by for one in given))
    check_explanations(explained, target, images)
    scored: list[Scores] = []
    attempts = attempts or Attempts()
    seen_by = [as_seen_by(target, judge) for judge in judges]
    for (name, sim), judge in itertools.product(in_one_pass(sims).items(), seen_by):
        log.info("%s: scoring by %s, judge %s", target.name, name, judge.name)
        # A judge with a vocabulary of its own needs no word list, which might have to be fetched.
        listed = words.of(images) if words is not None and judge.vocabulary(images) is None else ()
        work = partial(sim.score, explained, target, images, judge, trainer, listed)
        rows = attempts.run(f"{name} by {judge.name} on {target.name}", work)
        if rows is None:
            continue
        scored.append(rows)
        for method in explained:
            states = {row.status for row in scored[-1].rows if row.method == method}
            if states == {"unjudged"}:
                log.warning("The judge %s knows no explanation by %s: take another judge.", judge.name, method)
            if states == {"untested"}:
                log.warning("The test pictures cannot test what %s says: none shows any of it, or all do.", method)
    return scored


def check_explanations(explained: Mapping[str, Sequence[Explanation]], target: "Target", images: "Probe") -> None:
    """Raises UserError for an explanation of a part of a unit that is not split, or backed by an image that is not."""
    parts = {unit for split in (target.parts or {}).values() for unit in split.units}
    for method, explanations in explained.items():
        wrong = unsplit([explanation.unit for explanation in explanations]) - parts
        for explanation in explanations:
            if explanation.unit in wrong:
                raise UserError(
                    f"{method} explains {explanation.unit}, a part of a unit that is not split; there are two or "
                    "more parts of a unit, counted from 0."
                )
            if beyond := [image for image in explanation.evidence if not 0 <= image < len(images)]:
                raise UserError(
                    f"{method} backs its explanation of {explanation.unit} by image {beyond[0]}, but there are "
                    f"{len(images)} images, 0 to {len(images) - 1}."
                )


def evaluation_of(
    target: "Target",
    images: "Probe",
    found: Mapping[str, Found],
    scores: Sequence[Score],
    tables: Mapping[str, Table],
    trainer: TrainerFactory,
) -> "Evaluation":
    """What was found of one network so far, by methods and by scorers."""
    from neuronx.recording.record import record
    from neuronx.report.evaluation import Evaluation, activity
    from neuronx.scoring.accuracy import accuracies
    from neuronx.scoring.compare import agreement, compare

    for said in found.values():
        tables = joined(tables, said.tables)
    return Evaluation(
        explanations={(target.name, method): said.explanations for method, said in found.items()},
        scores=scores,
        comparisons=compare(scores),
        agreement=agreement(scores),
        activity=[activity(target.name, recorded) for recorded in record(target, images, trainer).values()],
        tables=tables,
        samples=[sample for said in found.values() for sample in said.samples],
        accuracies=accuracies([target], images, trainer),
    )


def joined(tables: Mapping[str, Table], more: Mapping[str, Table]) -> dict[str, Table]:
    """Both, the rows of tables of one name after each other: each network adds its own."""
    merged = dict(tables)
    for name, (columns, rows) in more.items():
        merged[name] = (columns, [*(merged[name][1] if name in merged else ()), *rows])
    return merged


def stored(given: Sequence[ExplanationFile], sim: "Stored") -> "Evaluation":
    """The scores that the files given bring along; needs neither images nor networks."""
    from neuronx.report.evaluation import Evaluation

    if not given:
        raise UserError("sim=stored needs files with stored scores: explanations=FILE or explanations=FOLDER.")
    return Evaluation(explanations={}, scores=sim.score(given).rows)


def read_given(
    explanations: Any, layers: Sequence[str] | None = None, targets: Sequence[str] = ()
) -> list[ExplanationFile]:
    """Reads what `explanations=` names; nothing for None."""
    return [] if explanations is None else read_files(explanations, layers, targets)


def of_units(explanations: Sequence[Explanation], target: "Target") -> list[Explanation]:
    """Those of the units asked for."""
    return [explanation for explanation in explanations if target.asks_for(explanation.unit)]


def about(given: Sequence[ExplanationFile], name: str, names: Sequence[str]) -> list[ExplanationFile]:
    """The files about a target: those named after it; if none are, all but those named after another of the run."""
    return [file for file in given if file.target == name] or [file for file in given if file.target not in names]


def of_target(
    given: Sequence[ExplanationFile], name: str, target: "Target", names: Sequence[str]
) -> dict[str, list[Explanation]]:
    """By method, the explanations in files that are about a target, of the layers and units asked for.

    Raises:
        UserError: When there are such files, and none is about a layer and units that are asked for.
    """
    mine = about(given, name, names)
    found = {}
    for method, read in by_method(mine).items():
        renamed = [replace(one, unit=replace(one.unit, layer=target.canonical(one.unit.layer))) for one in read]
        found[method] = of_units([one for one in renamed if one.unit.layer in target.layers], target)
    if mine and not any(found.values()):
        layers = sorted({layer for file in mine for layer in file.layers})
        raise UserError(
            f"The explanations are of {', '.join(layers[:5])}; the run is about {', '.join(target.layers)} of {name}. "
            "Say which layer and network with layers=... and target=..."
        )
    return found


def show(
    what: str,
    probe: "Callable[[], Probe]",
    targets: "Mapping[str, Target]",
    words: WordList,
    trainer: TrainerFactory,
    patterns: Sequence[str] = (),
) -> str:
    """A table of what the run is about: layers (some, by `patterns`), units, concepts, data, importance.

    Opens pictures only if needed.
    """
    from neuronx.report import inventory

    tables = {
        "layers": lambda: inventory.layers(targets, patterns),
        "units": lambda: inventory.units(targets),
        "concepts": lambda: inventory.concepts(words, probe()),
        "data": lambda: inventory.data(probe()),
        "importance": lambda: _importance(targets, probe(), trainer),
    }
    if what not in tables:
        raise unknown("thing to show", what, tables)
    return tables[what]()


def _importance(targets: "Mapping[str, Target]", probe: "Probe", trainer: TrainerFactory) -> str:
    from neuronx.data.latents import images_of
    from neuronx.report.importance import importance_table
    from neuronx.scoring.ablation.importance import UnitImportance, importance

    found: list[UnitImportance] = []
    for target in targets.values():
        images = images_of(target, probe)
        found += importance(target, images, trainer, rows=images.split("test")).values()
    return importance_table(found)


def fingerprints(images: "Probe", targets: "Mapping[str, Target]") -> dict[str, Plain]:
    """What identifies the images and the networks of a run, for its record."""
    return {images.name: images.fingerprint, **{name: target.digest for name, target in targets.items()}}


def write_files(evaluation: "Evaluation", folder: Path, config: str | None = None, **facts: Plain) -> None:
    """Writes the files of a run: tables, figures, the record. Raises UserError where the folder cannot be written."""
    from neuronx.report.evaluation import now, write, write_record
    from neuronx.report.figures import histograms, write_figure, write_score_fit

    try:
        write(evaluation, folder)
        if evaluation.samples:
            from neuronx.report.part_pictures import write_part_pictures

            write_part_pictures(evaluation.samples, folder)
        if evaluation.scores:
            write_figure(histograms(evaluation.scores), folder / "scores.html")
            write_score_fit(evaluation.scores, folder)
        write_record(folder, config, finished=now(), **facts)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {(error.strerror or str(error)).lower()}.") from error


def finish(evaluation: "Evaluation", folder: Path, config: str, loggers: Sequence[RunLogger], **facts: Plain) -> None:
    """Writes the files of the run, hands the evaluation to the loggers and prints it; on the first process only."""
    from neuronx.report.evaluation import show as show_evaluation

    if is_first():
        write_files(evaluation, folder, config, **facts)
        for logger in loggers:
            logger.log(evaluation, folder)
        show_evaluation(evaluation, folder)
