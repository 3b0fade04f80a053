"""MILAN's captioner against the same equations written plainly: one training step, greedy captions, a beam reranked."""

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import milan_plain as plain
from neuronx.methods.milan.captioner import Captioner
from neuronx.methods.milan.networks import Decoder, LanguageModel, Vocabulary
from neuronx.methods.milan.training.captioner import decoder_loss

WORDS, SIZE, EXEMPLARS, UNITS, STEPS, BEAM = 5000, 3904, 15, 64, 12, 50
ROUNDS = 5


def report() -> list[dict]:
    """CPU seconds of one thread, from features on, with random weights (the beams all go to their full length).

    The plain captioner captions 16 units at a time, as the published code does; training steps end with the same
    optimiser on both sides.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    decoder, lm = Decoder(WORDS, SIZE), LanguageModel(WORDS)
    captioner = Captioner(Vocabulary(tuple(f"w{i}" for i in range(WORDS))), decoder, lm).eval()
    slow, slow_lm = plain.PlainDecoder(WORDS, SIZE).eval(), plain.PlainLanguageModel(WORDS).eval()
    slow.load_state_dict(dict(decoder.named_parameters()))
    slow_lm.load_state_dict(lm.state_dict())
    features = torch.randn(UNITS, EXEMPLARS, SIZE).relu_()
    targets = torch.randint(0, WORDS, (UNITS, STEPS))

    captioner(features)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = [
        _compare(
            f"greedy, {UNITS} units",
            lambda: captioner(features, "greedy", pmi=False).tokens,
            lambda: plain.greedy(slow, features),
            ROUNDS,
        ),
        _compare(
            f"rerank, beam {BEAM}, {UNITS} units",
            lambda: captioner(features, "rerank", beam_size=BEAM).tokens,
            lambda: torch.cat([plain.rerank(slow, slow_lm, block, BEAM) for block in features.split(16)]),
            1,
        ),
    ]
    for row in rows:
        row |= {
            "same_tokens": round((row.pop("found") == row.pop("expected")).float().mean().item(), 4),
            "peak_mb": peak,
        }
    decoder.train()
    slow.train()
    ours, theirs = (torch.optim.AdamW(model.parameters()) for model in (decoder, slow))
    training = _compare(
        f"training step, {UNITS} captions of {STEPS} tokens",
        lambda: _step(decoder_loss(decoder, features, targets), ours),
        lambda: _step(slow.loss(features, targets), theirs),
        ROUNDS,
    )
    return [{name: value for name, value in training.items() if name not in ("found", "expected")}, *rows]


def _step(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def _compare(name: str, ours: Callable[[], Any], reference: Callable[[], Any], rounds: int) -> dict:
    """The median of interleaved rounds, after one to warm up where there are several."""
    if rounds > 1:
        ours(), reference()
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    found = {}
    for _ in range(rounds):
        for side, run in (("ours", ours), ("reference", reference)):
            start = time.process_time()
            found[side] = run()
            seconds[side].append(time.process_time() - start)
    fast, slow = (statistics.median(seconds[side]) for side in ("ours", "reference"))
    return {
        "name": name,
        "ours_cpu_s": fast,
        "reference_cpu_s": slow,
        "ratio": slow / fast,
        "found": found["ours"],
        "expected": found["reference"],
    }
