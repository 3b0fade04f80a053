"""Linear explanations against an exact reference that goes through the units one by one.

`run` has the signature of `linear_bench.py`, the case and the reference that are kept beside the checkout:

    python ../shared/bench/linear_bench.py --impl benchmarks/linear.py:run --repeat 5
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from neuronx.methods.linear import elastic_net
from neuronx.methods.linear.moments import ConceptMoments, moments
from neuronx.methods.linear.search import FoundFormulas, forward, greedy

BENCH = Path(__file__).resolve().parents[2] / "shared" / "bench" / "linear_bench.py"
BATCH = 1024
MANY = "--units 2048 --concepts 1400 --images 20000"


def run(
    P: np.ndarray,
    A: np.ndarray,
    train_ids: np.ndarray,
    val_ids: np.ndarray,
    lam: float,
    max_length: int,
    tolerance: float,
    width: int,
) -> list[dict]:
    """The published way, which is the reference's: the elastic net ranks the concepts, greedy search chooses."""
    train, val = (_moments(P, A, rows) for rows in (train_ids, val_ids))
    weights, left = elastic_net.solve(elastic_net.standardised(train, lam))
    ranking = elastic_net.ranking(weights, left, width * max_length)
    return _listed(greedy(train, val, ranking, max_length=max_length, tolerance=tolerance, width=width))


def run_forward(
    P: np.ndarray,
    A: np.ndarray,
    train_ids: np.ndarray,
    val_ids: np.ndarray,
    lam: float,
    max_length: int,
    tolerance: float,
    width: int,
) -> list[dict]:
    """The default: forward selection over all concepts, which needs no ranking."""
    train, val = (_moments(P, A, rows) for rows in (train_ids, val_ids))
    return _listed(forward(train, val, max_length=max_length, tolerance=tolerance))


def report() -> list[dict]:
    """One row a case: name, ours_cpu_s, reference_cpu_s, ratio, peak_mb, test_correlation. CPU seconds of one thread.

    With many units both columns are CPU seconds a unit; the reference's is its cost of one more.
    """
    if not BENCH.is_file():
        from benchmarks.linear_plain import compare

        return [compare(run)]
    rows = []
    for name, function, case, many in (
        ("linear: elastic net + greedy, 64 units", "run", "--repeat 5", False),
        ("linear: forward, 64 units", "run_forward", "--repeat 5", False),
        ("linear: elastic net + greedy, 2048 units, each", "run", f"{MANY} --marginal", True),
        ("linear: forward, 2048 units, each", "run_forward", f"{MANY} --marginal", True),
    ):
        implementation = f"--impl {Path(__file__).resolve()}:{function}"
        both, _ = _bench(f"{implementation} {case}")
        _, peak = _bench(f"{implementation} {case.replace('--marginal', '')} --no-reference")
        ours = both["yours"]["cpu_s"] / (both["case"]["K"] if many else 1)
        ratio = both["reference_cpu_over_yours"]
        rows.append(
            {
                "name": name,
                "ours_cpu_s": ours,
                "reference_cpu_s": ours * ratio,
                "ratio": ratio,
                "peak_mb": peak,
                "test_correlation": both["yours"]["quality"]["mean_test_corr"],
            }
        )
    return rows


def _moments(P: np.ndarray, A: np.ndarray, rows: np.ndarray) -> ConceptMoments:
    concepts, units = torch.from_numpy(P), torch.from_numpy(A)
    return moments((concepts[batch], units[batch]) for batch in torch.from_numpy(rows).split(BATCH))


def _listed(found: FoundFormulas) -> list[dict]:
    result = []
    for k, length in enumerate((found.chosen >= 0).sum(1).tolist()):
        result.append(
            {
                "concepts": found.chosen[k, :length].tolist(),
                "weights": found.weights[k, :length].tolist(),
                "bias": float(found.bias[k]),
                "val_corr": float(found.correlation[k]),
            }
        )
    return result


def _bench(arguments: str) -> tuple[dict, float]:
    """What linear_bench.py prints, and the largest resident memory of its process in MB (its data included)."""
    command = [sys.executable, str(BENCH), *arguments.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        text = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed")
    return json.loads(text[text.index("{") :]), usage.ru_maxrss / 1024
