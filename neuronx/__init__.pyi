"""The public names with their types, which `__init__.py` imports when first used."""

from collections.abc import Mapping
from typing import Any

from neuronx import milannotations as milannotations
from neuronx.api import Study as Study, explain as explain, score as score, study as study
from neuronx.data.in_memory import probe_of as probe_of
from neuronx.errors import UserError as UserError
from neuronx.recording.exemplars import find_exemplars as find_exemplars
from neuronx.report.area_chart import area_figure as area_figure, chart_explanation as chart_explanation
from neuronx.report.figures import write_figure as write_figure
from neuronx.report.head_study import study_head as study_head, write_head_study as write_head_study
from neuronx.report.importance import importance_figure as importance_figure, importance_table as importance_table
from neuronx.report.evaluation import leaderboard as leaderboard
from neuronx.report.figures import score_fit_figure as score_fit_figure
from neuronx.scoring.ablation.importance import importance as importance
from neuronx.tables.explanations import read_explanations as read_explanations, write_explanations as write_explanations
from neuronx.types import (
    Activations as Activations,
    Concepts as Concepts,
    Explanation as Explanation,
    Score as Score,
    Unit as Unit,
)
from neuronx.methods import milan as milan

__version__: str
__all__: list[str]

def first_used(package: str, public: Mapping[str, str], name: str) -> Any: ...
