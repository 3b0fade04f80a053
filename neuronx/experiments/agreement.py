"""How far people agree on what units do: each description against the others of its unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuronx.experiments.given import Given
from neuronx.methods.milan.training.annotations import Annotations
from neuronx.metrics.agreement import agreement
from neuronx.metrics.bert_score import BertScore
from neuronx.milannotations.reading import read_descriptions
from neuronx.options import Seed
from neuronx.report.caption_scores import caption_table, write_caption_scores


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far people agree on what units do: each description against the others of its unit, beside constants.

    Attributes:
        source: Where annotated units come from.
        models: Keys of the annotated units.
        file: A table of descriptions (layer, unit, summary) to look at instead.
        bert: To score by BERTScore too.
        seed: Which other unit a description is held against.
    """

    source: Annotations | None = None
    models: Sequence[str] = ("base",)
    file: str | Path | None = None
    bert: BertScore | None = None
    seed: Seed = 0

    def run(self, given: Given) -> str:
        """Scores them; writes `agreement.csv`, and one for each model where there are several."""
        said: dict[str, list[tuple[str, ...]]] = {}
        if self.file is not None:
            said[Path(self.file).stem] = list(read_descriptions(self.file).values())
        elif self.source is not None:
            for name in self.models:
                units = self.source.load(name, given.trainer)
                for index, of_unit in enumerate(units.annotations):
                    said.setdefault(units.model(index), []).append(of_unit)
        if len(said) != 1:
            said["all"] = [of_unit for of_model in list(said.values()) for of_unit in of_model]
        text = ""
        for name, descriptions in said.items():
            rows = agreement(descriptions, bert=self.bert, seed=self.seed)
            stem = "agreement" if len(said) == 1 or name == "all" else f"agreement_{name.replace('/', '_')}"
            given.write(write_caption_scores, f"{stem}.csv", rows)
            text += caption_table(
                rows, f"Agreement of people (x 100): {name}, {len(descriptions)} units", "descriptions"
            )
        return text
