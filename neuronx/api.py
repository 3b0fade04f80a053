"""neuronx from Python: study the units of any network on any pictures."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronx.errors import UserError, brief, in_python, unknown
from neuronx.types import Explanation, Found, Judge, Method, Score, Scorer, TrainerFactory, Unit, WordList

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from neuronx.concepts.clip import Clip
    from neuronx.data.probe import Probe
    from neuronx.report.evaluation import LeaderboardRow
    from neuronx.report.shown import Shown
    from neuronx.scoring.accuracy import Accuracy
    from neuronx.targets.target import Target


class Study:
    """A network on pictures: its units are explained, the explanations scored, the units looked at.

    `neuronx.study` makes one. What it found so far is in `explanations` (by method) and `scores`; each call gives back
    a list that shows as a table and becomes a pandas frame by `.frame()`.

    Attributes:
        target: The network.
        probe: The pictures; methods see train and val, scores test.
        explanations: What methods said so far, by their names.
        scores: Of these explanations.
    """

    def __init__(
        self,
        target: "Target",
        probe: "Probe",
        trainer: TrainerFactory | None = None,
        configs: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        from neuronx.command.registry import Registry
        from neuronx.data.latents import images_of
        from neuronx.recording.trainer import make

        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise UserError(f"seed={seed!r} is no whole number from 0 to {2**32 - 1}.")
        if trainer is not None and not callable(trainer):
            raise UserError(f"trainer={brief(trainer)} is not callable: give partial(lightning.Trainer, ...).")
        if configs is not None and (not isinstance(configs, str | Path) or not Path(configs).is_dir()):
            raise UserError(f"There is no folder {configs} (given as configs).")
        folder = None if configs is None else Path(configs)
        self.target, self.probe = target, images_of(target, probe)
        self.trainer: TrainerFactory = trainer or make
        self.registry = Registry(self.probe.domain, folder, seed)
        self.found: dict[str, Found] = {}
        self.scored: dict[tuple[str, str], list[Score]] = {}
        self.tables: dict[str, Any] = {}

    @property
    def explanations(self) -> dict[str, "Shown[Explanation]"]:
        """What methods said so far, by their names."""
        from neuronx.report import shown

        return {name: shown.explanations(found.explanations, found.samples) for name, found in self.found.items()}

    @property
    def scores(self) -> "Shown[Score]":
        """The scores of these explanations so far."""
        from neuronx.report import shown

        return shown.scores(row for rows in self.scored.values() for row in rows)

    @property
    def accuracy(self) -> "Accuracy | None":
        """Of the network on the test pictures; None where these are not labelled with its classes."""
        from neuronx.scoring.accuracy import accuracy

        return accuracy(self.target, self.probe, self.trainer)

    @in_python
    def explain(
        self,
        method: str | Method = "le_label",
        *,
        words: Sequence[str] | str | Path | WordList | None = None,
        clip: "str | Clip | None" = None,
        describe: str | Method | None = None,
        **options: Any,
    ) -> "Shown[Explanation]":
        """Explains the units.

        Args:
            method: A name of `configs/explain/`: le_label (needs labels), le_clip, clip_dissect, net_dissect or
                compositional (need pixel labels), milan, pure; or an object with `explain(target, probe, trainer)`.
            words: For le_clip and clip_dissect, the concepts to choose from: a list, a text file with one a line, or a
                name of `configs/concepts/`. By default the embedded world's for its own pictures, the published list
                (fetched) for natural ones.
            clip: Who explains: a name of `configs/clip/` or a `Clip`.
            describe: For pure, who names the parts.
            options: Of the method, as its YAML lists them: `max_length=1`, `similarity="wpmi"`.
        """
        from neuronx.command import pipeline

        name = method if isinstance(method, str) else type(method).__name__
        made = self._method(method, words, clip, describe, options)
        (found,) = pipeline.explain({name: made}, self.target, self.probe, self.trainer).values()
        self.found[found.name] = found
        self.scored = {key: rows for key, rows in self.scored.items() if found.name not in {row.method for row in rows}}
        return self.explanations[found.name]

    @in_python
    def score(
        self,
        explanations: "Sequence[Explanation] | Mapping[Any, Any] | str | None" = None,
        *,
        unit: int | str | Unit | None = None,
        judge: "str | Judge" = "labels",
        sim: str | Scorer = "correlation",
        words: Sequence[str] | str | Path | WordList | None = None,
        **options: Any,
    ) -> "Shown[Score]":
        """Scores explanations by how well they predict the units on the test pictures, which no method saw.

        Baselines (`shuffled-*`, `random-*`) and the `ceiling` come with them.

        Args:
            explanations: By default all that this study has found. Or a list of them, several lists by method, your
                own words for units (`{12: "dog", 13: "red OR blue"}`), or for one (`"dog", unit=12`).
            unit: The unit that a single text is about.
            judge: Who decides what a picture shows: labels, masks, clip (that of the pictures), a name, or an object.
            sim: correlation, ablation, purity, or an object.
            words: Concepts that the random baseline and the ceiling draw from; by default the judge's own vocabulary,
                the embedded world's words for its pictures, or what the explanations say and ImageNet's classes.
            options: Of the way to score, as its YAML lists them: `ceiling=False`.
        """
        from neuronx.command import pipeline
        from neuronx.report import shown

        mine = explanations is None
        judging = self.registry.judge(judge) if isinstance(judge, str) else _needs(judge, Judge, "judge")
        explained = self._explained(explanations, unit, judging)
        if not any(explained.values()) and sim != "purity":
            raise UserError("There is nothing to score: explain the units first, or give explanations.")
        scorer = self.registry.scorer(sim, options) if isinstance(sim, str) else _needs(sim, Scorer, "sim")
        if options and not isinstance(sim, str):
            raise UserError(f"{next(iter(options))}= is for ways to score by name; `sim` is an object already.")
        given = "default" if words is None and self.probe.domain != "natural" else words  # natural lists are fetched
        listed = None if given is None else self._words(given)
        parts = [found.target for found in self.found.values() if found.target is not None]
        target = [self.target, *parts][-1] if mine else self.target
        name = sim if isinstance(sim, str) else type(sim).__name__
        (scores,) = pipeline.score({name: scorer}, [judging], explained, target, self.probe, listed, self.trainer)
        if mine:
            self.scored[name, judging.name] = list(scores.rows)
            self.tables |= pipeline.joined({}, scores.tables)
        return shown.scores(scores.rows)

    @in_python
    def leaderboard(self) -> "Shown[LeaderboardRow]":
        """Means over units of all scores so far, the best method first; scores by correlation if there are none yet."""
        from neuronx.report import shown
        from neuronx.report.evaluation import leaderboard

        if not self.scored:
            self.score()
        return shown.leaderboard_rows(leaderboard(self.scores))

    @in_python
    def exemplars(self, unit: int | str | Unit, k: int = 15, quantile: float = 0.99, by: str = "pool") -> "Shown[Any]":
        """The `k` train and val pictures in which a unit is strongest; a notebook shows them.

        Where an explanation so far begins with a negative term, the picture shows the low end too.

        Args:
            unit: Its number, or `layer4:12` where the study has several layers.
            k: How many.
            quantile: Of the unit's activations; in the picture, places below it are dark.
            by: What counts: its activation as it is explained and scored (`pool`), or its `peak`.
        """
        from neuronx.report.exemplar_grids import begin_low, strongest_images

        if isinstance(k, bool) or not isinstance(k, int) or not isinstance(quantile, float):
            raise UserError(f"k={k!r} must be a whole number, and quantile={quantile!r} one between 0 and 1.")
        wanted = self._unit(unit)
        low = wanted in begin_low({name: told.explanations for name, told in self.found.items()})
        return strongest_images(wanted, self.target, self.probe, self.trainer, low, k=k, quantile=quantile, by=by)

    @in_python
    def parts(
        self, unit: int | str | Unit, describe: str | Method = "le_label", **options: Any
    ) -> "Shown[Explanation]":
        """The parts of a unit that means several things, each with a name; the unit itself if it means one.

        Args:
            unit: As in `exemplars`.
            describe: Who names the parts.
            options: Of the method pure: `k=3` for a number of parts, `alpha=None` to split without a test.
        """
        from neuronx.command import pipeline
        from neuronx.report import shown

        wanted = self._unit(unit)
        method = self._method("pure", options.pop("words", None), options.pop("clip", None), describe, options)
        alone = self.target.select(layers=[wanted.layer], units=[wanted.index])
        (found,) = pipeline.explain({"pure": method}, alone, self.probe, self.trainer).values()
        return shown.explanations(found.explanations, found.samples)

    @in_python
    def save(self, folder: str | Path) -> Path:
        """Writes what was found so far as the files of a run: explanations, scores, leaderboard, figures, record."""
        from neuronx.command import pipeline

        if not isinstance(folder, str | Path) or not (self.found or self.scored):
            raise UserError(f"There is nothing to save, or nowhere ({folder!r}): explain the units, give a path.")
        evaluation = pipeline.evaluation_of(self.target, self.probe, self.found, self.scores, self.tables, self.trainer)
        facts = pipeline.fingerprints(self.probe, {self.target.name: self.target})
        pipeline.write_files(evaluation, Path(folder), seed=self.registry.seed, fingerprints=facts)
        return Path(folder)

    def __repr__(self) -> str:
        layers = ", ".join(f"{layer or 'output'} ({pool})" for layer, pool in self.target.layers.items())
        said = ", ".join(self.found) or "nothing yet"
        pictures = f"{len(self.probe)} pictures of {self.probe.name}"
        pictures += f" (accuracy {100 * self.accuracy.value:.1f} %)" if self.accuracy is not None else ""
        return f"Study of {self.target.name}, {layers}, on {pictures}; found: {said}"

    def _method(
        self,
        method: str | Method,
        words: Any,
        clip: "str | Clip | None",
        describe: str | Method | None,
        options: Mapping[str, Any],
    ) -> Method:
        if not isinstance(method, str):
            given = {"words": words, "clip": clip, "describe": describe, **options}
            if extra := [name for name, value in given.items() if value is not None]:
                raise UserError(f"{extra[0]}= is for methods by name; `method` is an object already.")
            return _needs(method, Method, "method")
        if clip is not None and not isinstance(clip, str):
            clip = _needs(clip, Judge, "clip")
        if describe is not None and not isinstance(describe, str):
            describe = {type(describe).__name__.lower(): _needs(describe, Method, "describe")}  # type: ignore[assignment]
        listed = None if words is None else self._words(words)
        return self.registry.method(method, options, clip=clip, concepts=listed, describe=describe)

    def _words(self, words: Any) -> WordList:
        from neuronx.concepts.words import Words

        if isinstance(words, str) and words in self.registry.choices("concepts"):
            return self.registry.words(words)
        if isinstance(words, str | Path):
            if not Path(words).is_file():
                raise unknown("word list or file", str(words), self.registry.choices("concepts"))
            return Words(Path(words))
        if isinstance(words, WordList):
            return words
        if isinstance(words, Mapping) or not isinstance(words, Iterable):
            raise UserError(f"words={brief(words)} is no list of words: give words=['dog', 'grass', ...] or a file.")
        listed = list(words)
        if not listed or not all(isinstance(word, str) and word.strip() for word in listed):
            raise UserError(f"words={brief(words)} must hold words only: give words=['dog', 'grass', ...] or a file.")
        return Words(listed)

    def _unit(self, unit: Any) -> Unit:
        """The whole unit that is meant."""
        layers = list(self.target.layers)
        if isinstance(unit, str):
            try:
                unit = Unit.parse(unit)
            except ValueError as error:
                raise UserError(f"unit={unit!r}: {error}.") from None
        if isinstance(unit, int) and not isinstance(unit, bool):
            if len(layers) > 1:
                raise UserError(f"unit={unit} is in {len(layers)} layers: say which, as in unit='{layers[0]}:{unit}'.")
            unit = Unit(layers[0], unit)
        if not isinstance(unit, Unit):
            raise UserError(f"unit={unit!r} is no unit: give its number, or '{layers[0]}:12'.")
        layer = self.target.canonical(unit.layer)
        if layer not in layers:
            raise unknown("layer of this study", unit.layer, layers)
        (row,) = self.target.layer_table(layers=[layer])
        if not 0 <= unit.index < row.units:
            raise UserError(f"There is no unit {unit.index}: {layer} has units 0 to {row.units - 1}.")
        return Unit(layer, unit.index)

    def _explained(self, given: Any, unit: Any, judge: Judge) -> dict[str, list[Explanation]]:
        """Method -> explanations, of whatever the user gave."""
        if unit is not None and not isinstance(given, str):
            raise UserError("unit= goes with one text, as in score('dog', unit=12).")
        if given is None:
            return {name: list(found.explanations) for name, found in self.found.items()}
        if isinstance(given, str):
            if unit is None:
                raise UserError(f"Say which unit {given!r} is about, as in score({given!r}, unit=12).")
            given = {unit: given}
        if isinstance(given, Mapping) and all(isinstance(text, str) for text in given.values()) and given:
            own = [Explanation(self._unit(unit), ((text, 1.0),)) for unit, text in given.items()]
            if others := [said.unit for said in own if not self.target.asks_for(said.unit)]:
                raise UserError(f"{others[0]} is not among the units of this study (given as units=).")
            self._check_words(list(given.values()), judge)
            return {"yours": own}
        if isinstance(given, Mapping):
            if wrong := [name for name in given if not isinstance(name, str)]:
                raise UserError(f"explanations holds {given[wrong[0]]!r} for {wrong[0]!r}; expected a text.")
            return {name: _explanations(said) for name, said in given.items()}
        return {"explanation": _explanations(given)}

    def _check_words(self, texts: Sequence[str], judge: Judge) -> None:
        """Refuses a word of the user's that the judge does not know."""
        from neuronx.concepts.formula import parse, spoken

        known = judge.vocabulary(self.probe)
        names = frozenset(map(spoken, known or self.probe.class_names))
        for text in texts:
            if not text.strip():
                raise UserError("An explanation is empty: give a word or a formula of words.")
            for atom in parse(text, names).atoms:
                if known is not None and spoken(atom) not in names:
                    raise unknown(f"word of the judge {judge.name}", atom, known)


@in_python
def study(
    model: "nn.Module | Target",
    images: "str | Path | Tensor | Dataset | Probe",
    *,
    layer: str | Sequence[str] | None = None,
    pool: str | None = None,
    transform: Any = "imagenet",
    units: "str | int | Sequence[int] | None" = None,
    trainer: TrainerFactory | None = None,
    configs: str | Path | None = None,
    seed: int = 0,
) -> Study:
    """Records what the units of a network do on pictures; explain, score and look at them with what it gives back.

    Args:
        model: A plain module, or a `Target`, which brings its own transform.
        images: A folder (class subfolders give labels), a data set of (picture, label) or pictures, a uint8 tensor
            (N, 3, H, W), a float tensor (N, 3, H, W) that is fed as it is, or a `Probe`, as `neuronx.probe_of` makes it
            with labels. Split 70/10/20 at random, seed 0.
        layer: Dotted name of a layer, or several; the target's own by default.
        pool: How a map or tokens become one number: avg (the default), max, first, none or patch.
        transform: A preprocessing by name (`imagenet`, `cifar10`, ...), the fields of a `Preprocess`, any callable, or
            None for pictures in [0, 1] as they are.
        units: Those to explain: `"0:64"`, `[1, 7, 9]` or `"random:50"`; all by default.
        trainer: Makes Lightning trainers; by default one device, automatically chosen.
        configs: A folder with YAMLs of your own, as `--config-dir` of the command line: `explain/mine.yaml`.
        seed: Of baselines, clustering and random units.
    """
    from neuronx.recording.record import record
    from neuronx.scoring.accuracy import accuracies

    made = _study(model, images, layer, pool, transform, units, trainer, configs, seed)
    record(made.target, made.probe, made.trainer)
    accuracies([made.target], made.probe, made.trainer)
    return made


@in_python
def explain(
    model: "nn.Module | Target",
    images: "str | Path | Tensor | Dataset | Probe",
    *,
    layer: str | Sequence[str] | None = None,
    method: str | Method = "le_label",
    words: Sequence[str] | str | Path | WordList | None = None,
    clip: "str | Clip | None" = None,
    pool: str | None = None,
    transform: Any = "imagenet",
    trainer: TrainerFactory | None = None,
    **options: Any,
) -> "Shown[Explanation]":
    """Explains the units of one or several layers of a network: `study(...).explain(...)` in one call.

    `model` to `layer`, `pool`, `transform` and `trainer` are those of `study`; the others of `Study.explain`.
    """
    made = _study(model, images, layer, pool, transform, trainer=trainer)
    return made.explain(method, words=words, clip=clip, **options)


@in_python
def score(
    explanations: Sequence[Explanation] | Mapping[str, Sequence[Explanation]],
    model: "nn.Module | Target",
    images: "str | Path | Tensor | Dataset | Probe",
    *,
    judge: str | Judge = "labels",
    sim: str | Scorer = "correlation",
    words: Sequence[str] | str | Path | WordList | None = None,
    pool: str | None = None,
    transform: Any = "imagenet",
    trainer: TrainerFactory | None = None,
    seed: int = 0,
    **options: Any,
) -> "Shown[Score]":
    """Scores explanations of one method, or of several by name: `study(...).score(...)` in one call.

    `model`, `images`, `pool`, `transform`, `trainer` and `seed` are those of `study`; pass the same pictures as to
    `explain`. The others are those of `Study.score`.
    """
    by_method = explanations if isinstance(explanations, Mapping) else {"explanation": explanations}
    checked = {name: _explanations(said) for name, said in by_method.items()}
    layers = sorted({explanation.unit.layer for said in checked.values() for explanation in said})
    if not layers:
        raise UserError("There is nothing to score: the list of explanations is empty.")
    made = _study(model, images, layers, pool, transform, trainer=trainer, seed=seed)
    return made.score(checked, judge=judge, sim=sim, words=words, **options)


def _study(
    model: Any,
    images: Any,
    layer: Any,
    pool: str | None,
    transform: Any,
    units: Any = None,
    trainer: TrainerFactory | None = None,
    configs: str | Path | None = None,
    seed: int = 0,
) -> Study:
    """A study of which nothing is recorded yet."""
    from torch import nn

    from neuronx.data.in_memory import probe_of
    from neuronx.recording.forward_pass import try_pictures
    from neuronx.targets import custom
    from neuronx.targets.target import Target

    if not isinstance(model, nn.Module | Target):
        raise UserError(f"model={brief(model)} is no network: give a torch.nn.Module, or a Target.")
    layers = [layer] if isinstance(layer, str) else layer
    if layers is not None and (
        not isinstance(layers, Sequence) or not layers or not all(isinstance(name, str) for name in layers)
    ):
        raise UserError(f"layer={layer!r} is no name of a layer: give one, as in layer='layer4', or a list of them.")
    if layers is None and not isinstance(model, Target):
        raise UserError("Say which layer to explain, as in layer='layer4'; print(model) shows them all.")
    probe = probe_of(images)
    probe.check()
    if isinstance(model, nn.Module):
        target = custom.load(model, transform=transform, layers=layers or ())
        target = replace(target, input_size=target.input_size or try_pictures(target, probe))
    else:
        target = model
        try_pictures(target, probe)
    if any(given is not None for given in (layers, pool, units)):
        target = target.select(layers=layers, pool=pool, units=units, seed=seed)
    return Study(target, probe, trainer, configs, seed)


def _explanations(given: Any) -> list[Explanation]:
    """A list of explanations that can be scored, or a UserError."""
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise UserError(f"explanations={brief(given)} is no list of explanations, as neuronx.explain gives it.")
    listed = list(given)
    for explanation in listed:
        if not isinstance(explanation, Explanation):
            raise UserError(f"explanations holds {brief(explanation)}, which is no Explanation.")
        pairs = [term for term in explanation.terms if isinstance(term, tuple) and len(term) == 2]
        weights = [explanation.bias, *(weight for _, weight in pairs)]
        if len(pairs) < len(explanation.terms) or not all(isinstance(concept, str) for concept, _ in pairs):
            raise UserError(f"The terms of {explanation.unit} are no pairs of a concept and a weight.")
        if not all(isinstance(weight, int | float) and math.isfinite(weight) for weight in weights):
            raise UserError(f"The explanation of {explanation.unit} has a weight that is no finite number.")
    return listed


def _needs(given: Any, protocol: Any, argument: str) -> Any:
    """Refuses an object that lacks a verb or name of its protocol, and a class in place of an object."""
    lacks = sorted({name for name in vars(protocol) if not name.startswith("_")} - set(dir(given)))
    if isinstance(given, list | tuple):
        raise UserError(f"{argument}={brief(given)} holds several; give one, and call again for each other one.")
    if isinstance(given, type) or lacks:
        what = "it is a class; make an object of it" if isinstance(given, type) else f"it has no `{lacks[0]}`"
        raise UserError(f"{argument}={brief(given)} is no {protocol.__name__.lower()}: {what}.")
    return given
