"""BERTScore: how similar two texts are word by word in a language model's eyes (Zhang et al., 2020).

torchmetrics has it too, but pairs captions with other captions' references as soon as texts differ in length (seen in
1.9; its issue 2728 is open). One pair at a time it agrees with this.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.store.download import fetch_from_hub
from neuronx.tables.csv import any_case, read_csv

ROBERTA = "roberta-large"
"""The text model that BERTScore was published with; MILAN's figures are of it."""

UNITS, TEXTS = 256, 64
"""Of how many units word vectors are in memory, and how many texts the model reads at a time."""


@dataclass(frozen=True)
class BertScore:
    """Scores captions when called.

    Attributes:
        model: The folder of a model in the layout of transformers, or its name on the hub.
        layer: Whose outputs are compared, 0 being the embeddings; the last by default. For roberta-large 17 is usual.
        idf: Whether rare words count more: each by log((N + 1) / (n + 1)) where n of the N references have it.
        baseline: A table of what unrelated texts score (columns LAYER, P, R, F), as the authors publish them; scores
            are then rescaled so that this is 0 and likeness 1.
        device: To compute on.
    """

    model: str | Path = ROBERTA
    layer: int | None = None
    idf: bool = True
    baseline: str | Path | None = None
    device: str = "cpu"

    def __call__(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> Tensor:
        """The best F score of each caption among its references: (U,) float32, 0 where a text has no words.

        Args:
            captions: Of U units.
            references: At least one for each.

        Raises:
            UserError: The model is neither a folder nor cached, and the hub cannot be reached; it has no such layer; or
                the baseline has none.
        """
        floor = self._floor()
        tokenizer, network = self._load()
        weights = _idf(tokenizer, [text for given in references for text in given]) if self.idf else None
        best = []
        for start in range(0, len(captions), UNITS):
            mine, theirs = captions[start : start + UNITS], references[start : start + UNITS]
            texts = sorted({*mine, *(text for given in theirs for text in given)}, key=lambda text: (len(text), text))
            known = dict(zip(texts, self._read(tokenizer, network, texts, weights), strict=True))
            for text, given in zip(mine, theirs, strict=True):
                best.append(max(_f_score(*known[text], *known[other]) for other in given))
        return (torch.tensor(best) - floor) / (1 - floor)

    def _load(self) -> tuple[Any, Any]:
        folder = Path(self.model).expanduser()
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise UserError(f"{folder} is no text model: it has no config.json, as transformers saves them.")
        if not folder.is_dir():
            hint = "give the folder of any BERT that transformers saved as bert=DIR, or leave BERTScore out"
            fetch_from_hub(str(self.model), ["config.json"], hint)
        from transformers import AutoModel, AutoTokenizer

        where = folder if folder.is_dir() else self.model
        tokenizer, network = AutoTokenizer.from_pretrained(where), AutoModel.from_pretrained(where)
        layers = network.config.num_hidden_layers
        if self.layer is not None and not 0 <= self.layer <= layers:
            raise UserError(f"{self.model} has layers 0 to {layers}; BERTScore cannot compare layer {self.layer}.")
        return tokenizer, network.eval().to(self.device)

    def _read(
        self, tokenizer: Any, network: Any, texts: Sequence[str], weights: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """For each text the unit vectors (T, D) of its tokens and their weights (T,), special tokens left out."""
        for start in range(0, len(texts), TEXTS):
            batch = tokenizer(
                list(texts[start : start + TEXTS]),
                padding=True,
                truncation=True,
                max_length=min(tokenizer.model_max_length, 512),
                return_tensors="pt",
            )
            ids, mask = batch["input_ids"], batch["attention_mask"]
            with torch.inference_mode():
                seen = network(ids.to(self.device), mask.to(self.device), output_hidden_states=True).hidden_states
            vectors = F.normalize(seen[-1 if self.layer is None else self.layer].float(), dim=-1).cpu()
            worth = torch.ones(ids.shape) if weights is None else weights[ids]
            for row, length in enumerate(mask.sum(1).tolist()):
                yield vectors[row, 1 : length - 1], worth[row, 1 : length - 1]

    def _floor(self) -> float:
        if self.baseline is None:
            return 0.0
        rows = read_csv(self.baseline, any_case("LAYER", "F"))[1]
        layers = [row.whole("LAYER") for row in rows]
        wanted = max(layers) if self.layer is None else self.layer
        if wanted not in layers:
            raise UserError(f"{self.baseline} has no layer {wanted}, only {layers[0]} to {layers[-1]}.")
        return rows[layers.index(wanted)].number("F")


def _idf(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """The weight of every token id: (V,) float32."""
    having: Counter[int] = Counter()
    for ids in tokenizer(list(texts), truncation=True, max_length=min(tokenizer.model_max_length, 512))["input_ids"]:
        having.update(set(ids))
    counts = torch.tensor([having[token] for token in range(len(tokenizer))])
    return torch.log((len(texts) + 1) / (counts + 1))


def _f_score(x: Tensor, x_weights: Tensor, y: Tensor, y_weights: Tensor) -> float:
    """Harmonic mean of how well the tokens of either text find a similar one in the other. Opposites count 0."""
    if not len(x) or not len(y):
        return 0.0
    cosines = (x @ y.T).clamp(min=0)
    precision = float(x_weights @ cosines.amax(1) / x_weights.sum())
    recall = float(y_weights @ cosines.amax(0) / y_weights.sum())
    total = precision + recall
    return 2 * precision * recall / total if total > 0 else 0.0
