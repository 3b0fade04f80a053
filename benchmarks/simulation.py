"""Correlation scoring against a loop over units, written plainly from its formula in NumPy."""

import resource
import statistics
import time
from functools import partial

import numpy as np
import torch
from torch import Tensor

from neuronx.data.probe import Probe, seeded_splits
from neuronx.recording.trainer import make
from neuronx.scoring.correlation import Correlation
from neuronx.types import Activations, Explanation, Judgement, Unit

UNITS, CONCEPTS, IMAGES, WIDTH, TERMS = 2048, 1400, 50_000, 512, 5
A, B = 60.0, -0.09
ROUNDS = 5


class Images(Probe):
    """Images without pictures; a fifth of them are test images."""

    def __init__(self) -> None:
        super().__init__()
        self.name, self.domain, self.splits = "random", "natural", seeded_splits(IMAGES)

    def __len__(self) -> int:
        return IMAGES


class Recorded:
    """A judge with recorded embeddings of images and phrases."""

    name, domain = "recorded", ""

    def __init__(self, images: Tensor, texts: dict[str, Tensor]) -> None:
        self.images, self.texts = images, texts

    def vocabulary(self, probe: Probe) -> None:
        """Any phrase."""
        return None

    def judge(self, names: list[str], probe: Probe, trainer: object) -> Judgement:
        """Sigmoid of scaled cosines."""
        texts = torch.stack([self.texts[name] for name in names])
        known = torch.ones(len(names), dtype=torch.bool)
        return Judgement(known, lambda rows: torch.sigmoid(A * (self.images[rows] @ texts.T + B)))


def report() -> list[dict]:
    """CPU seconds of one thread, the median of interleaved rounds; embeddings are there already, on both sides."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images, words = (
        torch.nn.functional.normalize(torch.randn(n, WIDTH, generator=generator), dim=1) for n in (IMAGES, CONCEPTS)
    )
    texts = {f"concept {c}": word for c, word in enumerate(words)}
    names = list(texts)
    layer = Activations(
        torch.randn(IMAGES, UNITS, generator=generator), tuple(Unit("layer", k) for k in range(UNITS)), "avg"
    )
    rng = np.random.default_rng(0)
    explained = [
        Explanation(unit, tuple((names[c], float(rng.uniform(0.5, 3))) for c in rng.choice(CONCEPTS, TERMS, False)))
        for unit in layer.units
    ]
    probe, judge = Images(), Recorded(images, texts)
    trainer = partial(make, accelerator="cpu", enable_progress_bar=False)
    sim = Correlation(floors=False, ceiling=False)

    def ours() -> list[float]:
        scores = sim.score_recorded({"method": explained}, {"layer": layer}, "net", probe, judge, trainer).rows
        return [one.value for one in scores]

    def plain() -> list[float]:
        rows = probe.split("test").numpy()
        pictures, activations = images.numpy()[rows], layer.values.numpy()[rows]
        found = []
        for k, one in enumerate(explained):
            phrases = np.stack([texts[concept].numpy() for concept, _ in one.terms])
            scores = 1 / (1 + np.exp(-A * (pictures @ phrases.T + B)))
            prediction = scores @ np.array([weight for _, weight in one.terms], dtype=np.float32) + one.bias
            found.append(np.corrcoef(prediction, activations[:, k])[0, 1])
        return found

    ours()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rounds = [(_timed(ours), _timed(plain)) for _ in range(ROUNDS)]
    fast, slow = (statistics.median(one[side][1] for one in rounds) for side in (0, 1))
    return [
        {
            "name": f"{UNITS} explanations of {TERMS} terms, {len(probe.split('test'))} test images",
            "ours_cpu_s": fast,
            "reference_cpu_s": slow,
            "ratio": slow / fast,
            "peak_mb": peak,
            "largest_difference": f"{np.abs(np.array(rounds[0][0][0]) - np.array(rounds[0][1][0])).max():.1g}",
        }
    ]


def _timed(f: object) -> tuple[list[float], float]:
    start = time.process_time()
    found = f()
    return found, time.process_time() - start
