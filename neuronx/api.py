"""neuronx from Python: explain the units of any module on any pictures, and score explanations, in one call each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from neuronx.errors import UserError, unknown
from neuronx.recording.trainer import make
from neuronx.types import Explanation, Judge, Method, Score, TrainerFactory, as_found

if TYPE_CHECKING:
    from neuronx.concepts.clip import Clip
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

METHODS = ("le_label", "le_clip", "clip_dissect", "net_dissect", "compositional")
SIMS = ("correlation", "ablation")


def explain(
    model: "nn.Module | Target",
    images: "str | Path | Tensor | Dataset | Probe",
    *,
    layer: str | Sequence[str] | None = None,
    method: str | Method = "le_label",
    words: Sequence[str] | str | Path | None = None,
    clip: "Clip | None" = None,
    pool: str = "avg",
    transform: Any = "imagenet",
    trainer: TrainerFactory | None = None,
    **options: Any,
) -> list[Explanation]:
    """Explains the units of one or several layers of a network.

    Args:
        model: A plain module, or a `Target`, which brings its own transform.
        images: A folder (class subfolders give labels), a data set of (picture, label) or pictures, a uint8 tensor
            (N, 3, H, W), a float tensor (N, 3, H, W) that is fed as it is, or a `Probe`. Split 70/10/20 at random,
            seed 0; methods see the first two parts.
        layer: Dotted name of a layer, or several; the target's own by default.
        method: `le_label` (needs labels), `le_clip`, `clip_dissect`, `net_dissect` or `compositional` (need images with
            masks), or any object with `explain(target, probe, trainer)`.
        words: Concepts to choose from, as a list or a file with one a line, for `le_clip` and `clip_dissect`.
        clip: The CLIP that explains; by default the embedded one for generated pictures, SigLIP for natural ones.
        pool: avg, max, first, none or patch.
        transform: A preprocessing by name (`imagenet`, `cifar10`, ...), a `Preprocess`, any callable, or None.
        trainer: Makes Lightning trainers; by default one device, automatically chosen.
        options: Further options of the method, such as `search="greedy"` or `similarity="wpmi"`.

    Raises:
        UserError: On an unknown layer or method, or when the images do not have what the method needs.
    """
    target, probe = _target(model, layer, pool, transform), _probe(images)
    how = _method(method, words, clip, probe, options) if isinstance(method, str) else method
    name = method if isinstance(method, str) else type(method).__name__
    return list(as_found(how.explain(target, probe, trainer or make), name).explanations)


def score(
    explanations: Sequence[Explanation] | Mapping[str, Sequence[Explanation]],
    model: "nn.Module | Target",
    images: "str | Path | Tensor | Dataset | Probe",
    *,
    judge: str | Judge = "labels",
    sim: str = "correlation",
    words: Sequence[str] | str | Path | None = None,
    pool: str = "avg",
    transform: Any = "imagenet",
    trainer: TrainerFactory | None = None,
    seed: int = 0,
) -> list[Score]:
    """Scores explanations by how well they predict the units on the test images, which no method saw.

    Floors (`shuffled-*`, `random-*`) and the `ceiling` come with them.

    Args:
        explanations: Of one method, or of several by name.
        model: As in `explain`.
        images: As in `explain`; pass the same.
        judge: `labels`, `masks`, `clip` (the judge that belongs to the pictures), or a judge of your own.
        sim: `correlation` with the unit's activations, or `ablation`: what replacing the unit by its prediction leaves
            of the network's loss.
        words: Concepts that the random floor and the ceiling draw from; the judge's own vocabulary, or the
            explanations' concepts by default.
        pool: As in `explain`.
        transform: As in `explain`.
        trainer: As in `explain`.
        seed: Of the floors.
    """
    from neuronx.scoring.ablation.ablation import Ablation
    from neuronx.scoring.compare import check_judge
    from neuronx.scoring.correlation import Correlation

    if sim not in SIMS:
        raise unknown("way to score", sim, SIMS)
    explained = dict(explanations) if isinstance(explanations, Mapping) else {"explanation": explanations}
    layers = sorted({one.unit.layer for found in explained.values() for one in found})
    target, probe = _target(model, layers, pool, transform), _probe(images)
    judging = _judge(judge, probe) if isinstance(judge, str) else judge
    check_judge(judging, probe, [])
    names = _words(words, probe).names if words is not None else _concepts_of(explained)
    scorer = Correlation(seed=seed) if sim == "correlation" else Ablation(seed=seed)
    return list(scorer.score(explained, target, probe, judging, trainer or make, names).rows)


def _target(model: "nn.Module | Target", layer: str | Sequence[str] | None, pool: str, transform: Any) -> "Target":
    from neuronx.targets import custom
    from neuronx.targets.target import Target

    layers = [layer] if isinstance(layer, str) else list(layer) if layer is not None else None
    if isinstance(model, Target):
        return model if layers is None else model.select(layers=layers)
    if not layers:
        raise UserError("Say which layer to explain, as in layer='layer4'.")
    return custom.load(model, transform=transform, layers=layers, pool=pool)


def _probe(images: "str | Path | Tensor | Dataset | Probe") -> "Probe":
    from neuronx.data.in_memory import probe_of

    made = probe_of(images)
    made.check()
    return made


def _words(words: Sequence[str] | str | Path | None, probe: "Probe") -> Any:
    from neuronx.concepts.words import Words

    if words is not None:
        return Words(words)
    if probe.domain == "shapes":
        from neuronx.world.pictures.words import word_list

        return word_list()
    raise UserError("Say which words to choose from, as a list or a file: words=['dog', 'grass', ...].")


def _clip(role: str, probe: "Probe") -> "Clip":
    from neuronx.concepts.clip import Clip

    if probe.domain == "shapes":
        from neuronx.world.clip import ShapesClip

        return ShapesClip(pretrained=f"shapes_{role}")
    return Clip.published("ViT-L-16-SigLIP-384" if role == "explainer" else "ViT-SO400M-14-SigLIP-384")


def _method(name: str, words: Any, clip: "Clip | None", probe: "Probe", options: Mapping[str, Any]) -> Method:
    from neuronx.concepts.clip import ClipConcepts
    from neuronx.concepts.labels import LabelConcepts
    from neuronx.methods.clip_dissect.method import ClipDissect
    from neuronx.methods.linear.method import LinearExplanations
    from neuronx.methods.net_dissect.compositional import Compositional
    from neuronx.methods.net_dissect.method import NetDissect

    if name == "le_label":
        return LinearExplanations(LabelConcepts(), **options)
    if name == "net_dissect":
        return NetDissect(**options)
    if name == "compositional":
        return Compositional(**options)
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    explainer, listed = clip or _clip("explainer", probe), _words(words, probe)
    if name == "le_clip":
        return LinearExplanations(ClipConcepts(explainer, listed), **options)
    return ClipDissect(explainer, listed, **options)


def _judge(name: str, probe: "Probe") -> Judge:
    from neuronx.concepts.labels import LabelConcepts
    from neuronx.concepts.masks import TruthConcepts

    if name == "clip":
        return _clip("judge", probe)
    judges = {"labels": LabelConcepts, "masks": TruthConcepts}
    if name not in judges:
        raise unknown("judge", name, [*judges, "clip"])
    return judges[name]()


def _concepts_of(explained: Mapping[str, Sequence[Explanation]]) -> tuple[str, ...]:
    return tuple(sorted({concept for found in explained.values() for one in found for concept, _ in one.terms}))
