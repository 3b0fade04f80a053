"""neuronx explains single units of vision networks, and says how far each explanation can be trusted.

Start with a network, pictures and a layer:

    import neuronx

    study = neuronx.study(model, images, layer="layer4")      # records what the units do, once
    study.explain("le_label")                                 # each unit as a sum of labels; a table
    study.score()                                             # how well that predicts the units on unseen pictures
    study.leaderboard()                                       # the same as means, beside baselines and upper bound
    study.score("dog", unit=12)                               # your own word for a unit
    study.exemplars(12), study.parts(12)                      # the pictures where it fires; what it means, if several
    study.save("results/mine")                                # the files that the command line writes

`images` is a folder, a data set, a tensor, or what `neuronx.probe_of` makes of them with labels. Results are lists that
show as tables and become pandas frames by `.frame()`. Every mistake is a `neuronx.UserError` with one sentence.

Methods, judges and ways to score are those of the command line (`configs/explain/`, `configs/judge/`, `configs/sim/`).
`neuronx.milan` writes captions of units, `neuronx.milannotations` reads described exemplars, `neuronx.experiments`
holds studies of the papers. Reading starts in `neuronx.types`. The command line: `python evaluate.py --help`.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# A wheel carries callbacks/, configs/ and checkpoints/ inside this package; a checkout keeps them beside it.
_here = Path(__file__).resolve().parent
if not (_here / "configs").is_dir():
    __path__.append(str(_here.parent))

# Imported when first used, so that `import neuronx` and `--help` do not wait for torch. Types: __init__.pyi.
_PUBLIC = {
    "Activations": "types",
    "Concepts": "types",
    "Explanation": "types",
    "Score": "types",
    "Study": "api",
    "Unit": "types",
    "UserError": "errors",
    "area_figure": "report.area_chart",
    "chart_explanation": "report.area_chart",
    "explain": "api",
    "find_exemplars": "recording.exemplars",
    "importance": "scoring.ablation.importance",
    "importance_figure": "report.importance",
    "importance_table": "report.importance",
    "leaderboard": "report.evaluation",
    "probe_of": "data.in_memory",
    "read_explanations": "tables.explanations",
    "score": "api",
    "score_fit_figure": "report.figures",
    "study": "api",
    "study_head": "report.head_study",
    "write_figure": "report.figures",
    "write_head_study": "report.head_study",
    "write_explanations": "tables.explanations",
}
_PACKAGES = {"milan": "methods.milan", "milannotations": "milannotations"}
__all__ = sorted(_PUBLIC)


def first_used(package: str, public: Mapping[str, str], name: str) -> Any:
    """What a package's `__getattr__` returns (PEP 562): a name of a module that is imported when first used.

    Args:
        package: Its dotted name.
        public: Name -> the module, below the package, that defines it.
        name: What is asked for.

    Raises:
        AttributeError: There is no such name.
    """
    if name not in public:
        raise AttributeError(f"module `{package}` has no attribute `{name}`")
    return getattr(import_module(f"{package}.{public[name]}"), name)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"neuronx.{_PACKAGES[name]}")
    return first_used(__name__, _PUBLIC, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__, *_PACKAGES]
