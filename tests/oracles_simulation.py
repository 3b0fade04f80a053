"""A planted world for simulation, and scoring as plainly as its formula, unit by unit."""

import numpy as np
import torch

from neuronx.data.probe import Probe, seeded_splits
from neuronx.types import Activations, Explanation, Judgement, Unit


class Rows(Probe):
    """N images without pictures."""

    def __init__(self, n, domain="natural"):
        super().__init__()
        self.name, self.domain, self.n = "planted", domain, n
        self.splits = seeded_splits(n)

    def __len__(self):
        return self.n


class Table:
    """A judge who has a table of what each image shows; with `any_phrase` it has no vocabulary to offer."""

    domain, encoders = "", ()

    def __init__(self, names, scores, name="table", any_phrase=False):
        self.names, self.scores, self.name, self.any_phrase = tuple(names), scores, name, any_phrase
        self.asked = []

    def vocabulary(self, probe):
        return None if self.any_phrase else self.names

    def judge(self, names, probe, trainer):
        self.asked.append(tuple(names))
        known = torch.tensor([name in self.names for name in names], dtype=torch.bool)
        columns = [self.names.index(name) if name in self.names else 0 for name in names]
        return Judgement(known, lambda rows: self.scores[rows][:, columns] * known)


def planted(n=1000, concepts=40, units=24, noise=0.7, seed=0):
    """A judge's table, a layer whose units are sums of two concepts and noise, and the true explanations."""
    rng = np.random.default_rng(seed)
    names = [f"c{i}" for i in range(concepts)]
    scores = 1 / (1 + np.exp(-3 * (rng.standard_normal((n, concepts)) - 1)))
    values, truth = np.empty((n, units)), []
    for k in range(units):
        a, b = rng.choice(concepts, 2, replace=False)
        signal = 2 * scores[:, a] + scores[:, b]
        values[:, k] = signal + noise * signal.std() * rng.standard_normal(n) - 0.4
        truth.append(Explanation(Unit("layer", k), ((names[a], 2.0), (names[b], 1.0)), bias=-0.4))
    judge = Table(names, torch.tensor(scores, dtype=torch.float32))
    return judge, recorded(values), truth


def recorded(values, layer="layer", pool="avg"):
    values = torch.as_tensor(values, dtype=torch.float32)
    return Activations(values, tuple(Unit(layer, k) for k in range(values.shape[1])), pool)


def correlation(explanation, judge, activations, rows):
    """Pearson of one unit and its explanation's plain terms, in float64."""
    prediction = np.full(len(rows), explanation.bias, dtype=np.float64)
    for concept, weight in explanation.terms:
        prediction += weight * judge.scores[rows, judge.names.index(concept)].double().numpy()
    actual = activations.values[rows, explanation.unit.index].double().numpy()
    return np.corrcoef(prediction, actual)[0, 1]


def ablation(q, logits_at, labels, z, val, test, mode, temperature=1.0, steps=100, lr=1e-2):
    """One unit's ablation score, as plainly as its formula: the network is run anew for every amount and step.

    Args:
        q: (N,) predictions.
        logits_at: From amounts (B,) of the unit and rows (B,) to logits (B, C); may be differentiated.
        labels: (N,).
        z: (N,) activations.
        val: Rows of val.
        test: Rows of test.
        mode: optim or norm.
        temperature: Logits are divided by it.
        steps: Of Adam.
        lr: Of Adam.
    """

    def damage(amounts, rows):
        def loss(values):
            return torch.nn.functional.cross_entropy(
                logits_at(values, rows).double() / temperature, labels[rows], reduction="none"
            )

        return (loss(amounts) - loss(z[rows]).detach()).abs().sum()

    q, z = q.double(), z.double()
    mean = z[val].mean()
    if mode == "norm":
        r = torch.corrcoef(torch.stack((z[val], q[val])))[0, 1]
        simulated = (q[test] - q[test].mean()) / q[test].std() * z[val].std() * r + mean
    else:
        c, d = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        adam = torch.optim.Adam([c.requires_grad_(), d.requires_grad_()], lr=lr)
        for _ in range(steps):
            adam.zero_grad()
            damage(c * q[val] + d, val).backward()
            adam.step()
        simulated = (c * q[test] + d).detach()
    with torch.no_grad():
        return float(1 - damage(simulated, test) / damage(mean.expand(len(test)), test))
