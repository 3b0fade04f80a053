"""The central types: what flows from the data to the leaderboard. Everything here is frozen."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import total_ordering
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from lightning import Trainer
    from torch import Tensor

Target = Any
"""A network under study, `neuronx.targets.target.Target`; not imported here, since that file imports this one."""
Probe = Any
"""A probing data set, `neuronx.data.probe.Probe`; likewise."""
TrainerFactory = Callable[..., "Trainer"]
"""Makes a fresh `lightning.Trainer`; keyword arguments override the configured ones (`trainer(max_epochs=1)`)."""


def dotted(layer: str) -> str:
    """The canonical spelling of a layer: `encoder.mlp[1]` becomes `encoder.mlp.1`."""
    spelt = re.sub(r"\[(\d+)\]", r".\1", layer)
    return spelt[1:] if layer.startswith("[") else spelt


@total_ordering
@dataclass(frozen=True)
class Unit:
    """One unit of a layer, or one part of a unit that means several things.

    Prints as `layer4:12`, a part as `layer4:12/0`; `Unit.parse` reads both back. Layer names may hold dots,
    brackets and colons. Units sort by layer, index, part; the whole unit comes before its parts.
    """

    layer: str
    index: int
    part: int | None = None

    def __str__(self) -> str:
        return f"{self.layer}:{self.index}" + ("" if self.part is None else f"/{self.part}")

    def __lt__(self, other: "Unit") -> bool:
        return self._order() < other._order()

    def _order(self) -> tuple[str, int, int]:
        return self.layer, self.index, -1 if self.part is None else self.part

    @classmethod
    def parse(cls, text: str) -> "Unit":
        """Reads `layer:index` or `layer:index/part`. Raises ValueError on anything else."""
        match = re.fullmatch(r"(.*):(\d+)(?:/(\d+))?", text)
        if match is None:
            raise ValueError(f"`{text}` is not a unit; expected layer:index or layer:index/part, as layer4:12")
        layer, index, part = match.groups()
        return cls(layer, int(index), None if part is None else int(part))


def unsplit(units: Iterable[Unit]) -> frozenset[Unit]:
    """The parts among some units whose unit is not split: a split unit has two or more parts, counted from 0."""
    parts: dict[Unit, set[int]] = {}
    for unit in units:
        if unit.part is not None:
            parts.setdefault(replace(unit, part=None), set()).add(unit.part)
    whole = {unit for unit, own in parts.items() if len(own) < 2 or own != set(range(len(own)))}
    return frozenset(replace(unit, part=part) for unit in whole for part in parts[unit])


@dataclass(frozen=True)
class Activations:
    """Pooled activations of one layer over all images of a probe.

    Attributes:
        values: (N, K) float32, row i belongs to image i of the probe; memory-mapped, so do not write to it.
        units: The K units, in column order.
        pool: How each image's map or tokens became one number: avg, max, first, none or patch.
        broken: Columns of units that are NaN or infinite on some image; their values are all 0.
    """

    values: "Tensor"
    units: tuple[Unit, ...]
    pool: str
    broken: tuple[int, ...] = ()

    @property
    def layer(self) -> str:
        """The layer that all of the units belong to."""
        return self.units[0].layer


@dataclass(frozen=True)
class Concepts:
    """How strongly each image shows each concept.

    Attributes:
        names: The C concepts, distinct.
        scores: (N, C) float32 in [0, 1], row i belongs to image i of the probe.
        encoders: Digests of the encoders (CLIPs) that scored; none for labels and masks.
    """

    names: tuple[str, ...]
    scores: "Tensor"
    encoders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """What a method says that a unit does: activation ~ bias + sum of weight times concept.

    Attributes:
        unit: The unit explained.
        terms: (concept, weight) pairs, largest weight first. A caption is one term of weight 1. Empty for a
            unit that never changes ("inactive").
        bias: The constant of a linear explanation; 0 for others.
        evidence: Ids of the images that back it.
        notes: Named numbers that belong to it, such as ("val correlation", 0.43), ("similarity", 0.2) or
            scores stored in a file that it was read from.
        made_by: The method's name, then the digest of each encoder (CLIP, captioner's image encoder) that took part,
            so that none of these judges it. A method gives the digests, `as_found` puts its name first. Empty where
            nobody knows, as for published files.
        support: Of each term, how many train and how many test images show its concept, by the scores that the method
            goes by: images that show it with probability .3 count .3. Empty where unknown. It says what an explanation
            rests on and is no part of it: equal explanations may differ in it.
    """

    unit: Unit
    terms: tuple[tuple[str, float], ...]
    bias: float = 0.0
    evidence: tuple[int, ...] = ()
    notes: tuple[tuple[str, float], ...] = ()
    made_by: tuple[str, ...] = ()
    support: tuple[tuple[float, float], ...] = field(default=(), compare=False)

    @property
    def support_text(self) -> str:
        """Train and test images of each term, such as `120/31;8.5/2`; "" where unknown."""
        return ";".join(f"{train:.12g}/{test:.12g}" for train, test in self.support)

    @property
    def is_linear(self) -> bool:
        """Whether it is a weighted sum rather than one plain description."""
        return len(self.terms) > 1 or self.bias != 0 or any(weight != 1 for _, weight in self.terms)

    def __str__(self) -> str:
        if not self.terms:
            return "inactive"
        if not self.is_linear:
            return self.terms[0][0]
        first, *others = [*(f"{in_digits(weight)} {concept}" for concept, weight in self.terms), in_digits(self.bias)]
        return first + "".join(f" - {text[1:]}" if text.startswith("-") else f" + {text}" for text in others)


def in_digits(weight: float) -> str:
    """A weight as explanations show it: two decimals, or two digits of a small and three of a huge one."""
    size = abs(weight)
    if size == 0 or 0.095 <= size < 1e6:
        return f"{weight:.2f}"
    return f"{weight:.2g}" if size < 1 else f"{weight:.3g}"


@dataclass(frozen=True)
class PartSamples:
    """The references of one unit, by part.

    Attributes:
        target: Name of the network.
        unit: The unit.
        names: What is said of each part; "" where nothing is.
        labels: (n,) int64, the part of each reference, strongest references first.
        crops: (n, 3, S, S) uint8.
        masks: (n, 1, S, S) uint8, 1 where the unit fires; None where the whole picture counts.
        vectors: (n, D) float32, the circuits.
    """

    target: str
    unit: Unit
    names: tuple[str, ...]
    labels: "Tensor"
    crops: "Tensor"
    masks: "Tensor | None"
    vectors: "Tensor"


Cell = str | float | None
"""What a table can hold; NaN and None are written as nothing."""
Table = tuple[Sequence[str], Sequence[Sequence[Cell]]]
"""Columns and rows."""


@dataclass(frozen=True)
class Found:
    """All that a method has to say about the units of a network.

    Attributes:
        explanations: Of units, or of their parts.
        tables: Columns and rows by file name, written into the run's folder.
        samples: References of split units, to be shown.
        target: The network with the parts of its units, where the method splits units; None for the network as it is.
        name: What tables call the method if not by its config: pure-le_clip; +visual follows the config's name.
    """

    explanations: Sequence[Explanation]
    tables: Mapping[str, Table] = field(default_factory=dict)
    samples: Sequence[PartSamples] = ()
    target: Target | None = None
    name: str = ""


def as_found(said: Found | Sequence[Explanation], method: str = "") -> Found:
    """What a method returned, as `Found`; where its name is given, `made_by` of its explanations begins with it."""
    found = said if isinstance(said, Found) else Found(said)
    if not method:
        return found
    name = method + found.name if found.name.startswith("+") else found.name or method
    named = [replace(explanation, made_by=(name, *explanation.made_by)) for explanation in found.explanations]
    return replace(found, explanations=named, name=name)


class Method(Protocol):
    """A way to explain units. One verb; what it needs beyond the arguments is injected by its config."""

    def explain(self, target: Target, probe: Probe, trainer: TrainerFactory) -> Found | Sequence[Explanation]:
        """Explains the units of every layer in `target.layers`, from the train and val images of `probe` only.

        A method that has nothing more to say may return just its explanations.
        """
        ...


@runtime_checkable
class Checks(Protocol):
    """A method that explains by any pictures when it is asked for by name, and knows which do not suit it."""

    def check(self, probe: Probe) -> None:
        """Raises Unsuitable for pictures that do not suit it."""
        ...


@runtime_checkable
class Sees(Protocol):
    """A method that uses encoders and says so before it explains, so that a judge with one of them is refused early."""

    @property
    def encoders(self) -> tuple[str, ...]:
        """Their digests."""
        ...


def encoders_of(method: Method) -> tuple[str, ...]:
    """Digests of the encoders that a method will explain with; none for a method that does not say."""
    return method.encoders if isinstance(method, Sees) else ()


def check_suits(method: Method, probe: Probe) -> None:
    """Raises Unsuitable where a method knows that these pictures do not suit it."""
    if isinstance(method, Checks):
        method.check(probe)


@runtime_checkable
class Needs(Protocol):
    """A method or a way to score that knows beforehand which networks and pictures it cannot work on."""

    def needs(self, target: "Target", probe: Probe) -> None:
        """Raises UserError for a network or pictures that lack what it needs, before any pass."""
        ...


class Parts(Protocol):
    """Virtual units of a layer: shares of its own units, image by image. PURE splits units into such parts."""

    @property
    def units(self) -> tuple[Unit, ...]:
        """The V virtual units, each a part of the unit of its index."""
        ...

    def gates(self, target: Target, probe: Probe, trainer: TrainerFactory) -> "Tensor":
        """How much of its unit each part has on all images: (N, V) float32, adding up to 1 over the parts of a unit."""
        ...


class ConceptSource(Protocol):
    """Whatever turns a probe's images into concept scores: labels, a CLIP with a word list, masks."""

    @property
    def encoders(self) -> tuple[str, ...]:
        """Digests of the encoders (CLIPs) that it uses; none for labels and masks."""
        ...

    def concepts(self, probe: Probe, trainer: TrainerFactory) -> Concepts:
        """Scores all N images of the probe on every concept."""
        ...


@dataclass(frozen=True)
class Judgement:
    """How a judge sees C concepts.

    Attributes:
        known: (C,) bool, whether the judge can say anything about the concept.
        scores: From rows (B,) of the probe to (B, C) float32 in [0, 1]; unknown concepts score 0.
    """

    known: "Tensor"
    scores: "Callable[[Tensor], Tensor]"


class Judge(Protocol):
    """Who decides which concepts a test image shows: a CLIP that no explanation was made with, labels, or masks.

    Attributes:
        name: Of the judge, written into every table.
        domain: The kind of pictures that it can judge, "shapes" or "natural"; "" for any.
        encoders: Digests of the encoders that it sees with, none for labels and masks. It may not judge an explanation
            that one of them made.
    """

    @property
    def name(self) -> str:
        """Of the judge."""
        ...

    @property
    def domain(self) -> str:
        """The kind of pictures that it can judge."""
        ...

    @property
    def encoders(self) -> tuple[str, ...]:
        """Digests of the encoders that it sees with."""
        ...

    def vocabulary(self, probe: Probe) -> tuple[str, ...] | None:
        """All concepts that the judge knows, or None when it can judge any phrase."""
        ...

    def judge(self, names: Sequence[str], probe: Probe, trainer: TrainerFactory) -> Judgement:
        """Prepares to judge the named concepts (plain phrases, no formulas) on any images of the probe."""
        ...


UNKNOWN = "unknown"
"""What stands in a `Score` read from a file that does not record its network, pooling or images."""


@dataclass(frozen=True)
class Score:
    """One unit's score under one method and judge: a row of `scores.csv`.

    Attributes:
        target: Name of the network.
        pool: Pooling of the layer.
        unit: The unit scored; it knows its layer.
        method: Whose explanation, such as le_label, or a floor or ceiling: shuffled-le_label, random-le_label, ceiling.
        score: correlation, ablation_optim, ablation_norm, purity, purity_held_out, pairs, loop_top, loop_low,
            drawn_auc, drawn_mad or stored.
        value: The score; NaN unless status is ok.
        sem: Its standard error; NaN where unknown.
        n: Number of images that it was computed on.
        status: ok, inactive, rare, unjudged, untested, broken or no_effect. A score that is no finite number is broken,
            whoever made it.
        explanation: In words.
        judge: Name of the judge.
        images: `<data>/<split>:<n>`.
    """

    target: str
    pool: str
    unit: Unit
    method: str
    score: str
    value: float
    sem: float
    n: int
    status: str
    explanation: str
    judge: str
    images: str

    def __post_init__(self) -> None:
        if self.status == "ok" and not math.isfinite(self.value):
            for name, value in (("status", "broken"), ("value", math.nan), ("sem", math.nan)):
                object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Scores:
    """All that a scorer has to say.

    Attributes:
        rows: One a unit, method and score, floors and ceiling among them.
        tables: Columns and rows by file name, written into the run's folder.
        samples: References of units, to be shown.
    """

    rows: Sequence[Score]
    tables: Mapping[str, Table] = field(default_factory=dict)
    samples: Sequence[PartSamples] = ()


class Scorer(Protocol):
    """A way to score explanations: correlation, ablation, clustering, or yours."""

    def score(
        self,
        explained: Mapping[str, Sequence[Explanation]],
        target: Target,
        probe: Probe,
        judge: Judge,
        trainer: TrainerFactory,
        words: Sequence[str] = (),
    ) -> Scores:
        """Scores explanations on the test images of `probe`.

        Args:
            explained: Method -> its explanations, of any layers of the target.
            target: The network.
            probe: The images.
            judge: Decides which concepts an image shows.
            trainer: Makes trainers.
            words: The concepts of the random baseline and the ceiling where the judge has no vocabulary.
        """
        ...


@runtime_checkable
class WordList(Protocol):
    """A list of concepts, read when first asked for."""

    def of(self, probe: Probe | None) -> tuple[str, ...]:
        """The distinct words to use on these images; None where no images are at hand."""
        ...


class RunLogger(Protocol):
    """Receives the results of a run: tables in its folder, Weights & Biases.

    Attributes:
        images: Whether it is to be given pictures too.
    """

    @property
    def images(self) -> bool:
        """Whether it is to be given pictures too."""
        ...

    def log(self, evaluation: Any, folder: Path) -> None:
        """Logs a `neuronx.report.evaluation.Evaluation`."""
        ...

    def log_tables(self, tables: Mapping[str, Table], folder: Path) -> None:
        """Logs tables by name."""
        ...

    def lightning(self, folder: Path) -> Any:
        """The Lightning logger of the same kind, for training."""
        ...


class Task(Protocol):
    """What `train.py` trains."""

    def run(self, trainer: TrainerFactory, folder: Path, ckpt_path: str | None = None) -> Path:
        """Trains, or resumes from a checkpoint; returns the path of the weights, with a card beside them."""
        ...


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same units: a row of `comparisons.csv`.

    Attributes:
        target: Name of the network.
        layer: The layer whose units are compared.
        score: As in `Score`.
        a: One method.
        b: The other.
        diff: Mean of a minus b over the units scored for both.
        low: Lower end of the interval of `diff`.
        high: Upper end.
        n_units: Number of units scored for both.
        interval: bootstrap, or t for fewer than ten units; none for a single one.
    """

    target: str
    layer: str
    score: str
    a: str
    b: str
    diff: float
    low: float
    high: float
    n_units: int
    interval: str = "bootstrap"


Plain = str | int | float | bool | None | list[Any] | Mapping[str, Any]
"""What canonical JSON can hold; cache keys and run records are made of it."""
