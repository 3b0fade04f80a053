"""neuronx explains single units of vision networks, and says how far each explanation can be trusted."""

from importlib import import_module
from pathlib import Path
from typing import Any

from neuronx.lazy import first_used

__version__ = "0.1.0"

# A wheel carries callbacks/, configs/ and checkpoints/ inside this package; a checkout keeps them beside it.
_here = Path(__file__).resolve().parent
if not (_here / "configs").is_dir():
    __path__.append(str(_here.parent))

# Imported when first used, so that `import neuronx` and `--help` do not wait for torch.
_PUBLIC = {
    "Activations": "types",
    "Concepts": "types",
    "Explanation": "types",
    "Score": "types",
    "Unit": "types",
    "UserError": "errors",
    "area_figure": "report.area_chart",
    "chart_explanation": "report.area_chart",
    "explain": "api",
    "find_exemplars": "recording.exemplars",
    "importance": "scoring.ablation.importance",
    "importance_figure": "report.importance",
    "importance_table": "report.importance",
    "leaderboard": "report.leaderboard",
    "probe_of": "data.in_memory",
    "read_explanations": "tables.explanations",
    "score": "api",
    "score_fit_figure": "report.figures",
    "study_head": "report.head_study",
    "write_figure": "report.figures",
    "write_head_study": "report.head_study",
    "write_explanations": "tables.explanations",
}
_PACKAGES = {"milan": "methods.milan", "milannotations": "milannotations"}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"neuronx.{_PACKAGES[name]}")
    return first_used(__name__, _PUBLIC, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
