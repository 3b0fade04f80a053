"""Slow, obviously right versions of what `neuronx.methods.net_dissect` computes."""

from itertools import product

import numpy as np

OPERATORS = ("OR", "AND", "AND NOT")


def tally(fires: np.ndarray, truth: np.ndarray, category: list[int], kinds: int) -> dict[str, np.ndarray]:
    """Masks of units (N, K, H, W) and of concepts (N, C, H, W), compared image by image, one pair after the other."""
    images, units = fires.shape[:2]
    concepts = truth.shape[1]
    both, annotated, hit = np.zeros((units, concepts)), np.zeros((units, kinds)), np.zeros((units, kinds))
    for i in range(images):
        for k in range(units):
            area = fires[i, k].sum()
            for c in range(concepts):
                both[k, c] += np.logical_and(fires[i, k], truth[i, c]).sum()
            for g in range(kinds):
                mine = [truth[i, c] for c in range(concepts) if category[c] == g]
                annotated[k, g] += area * any(mask.any() for mask in mine)
                hit[k, g] += area * any((mask & fires[i, k]).any() for mask in mine)
    fires, truth = fires.sum((0, 2, 3)), truth.sum((0, 2, 3))
    return {"both": both, "truth": truth, "annotated": annotated, "hit": hit, "fires": fires}


def formula_mask(truth: np.ndarray, formula: tuple) -> np.ndarray:
    """The mask of a formula (concept, (operator, concept), ...) read from left to right; truth is (C, cells)."""
    mask = truth[formula[0]]
    for operator, concept in formula[1:]:
        if operator == "OR":
            mask = np.logical_or(mask, truth[concept])
        else:
            mask = np.logical_and(mask, truth[concept] if operator == "AND" else np.logical_not(truth[concept]))
    return mask


def iou(fires: np.ndarray, mask: np.ndarray) -> float:
    """Of two masks (cells,)."""
    both = np.logical_and(fires, mask).sum()
    return both / (fires.sum() + mask.sum() - both + 1e-10)


def beam_search(fires: np.ndarray, truth: np.ndarray, length: int, beam: int, penalty: float = 1.0) -> list[tuple]:
    """The beam of one unit (cells,), best first: (score, formula), every formula scored on full masks.

    A formula is left out when its last concept changes nothing, when it equals that concept alone, when nothing shows
    it, or when it only says in another order what stands before it.
    """
    concepts = range(len(truth))
    best = sorted(((-iou(fires, truth[c]), 0, (c,)) for c in concepts), key=lambda one: one[0])
    best = [one for one in best if one[0] < 0][:beam]
    for _ in range(length - 1):
        tried = list(best)
        for _, _, formula in best:
            mine = {formula[0], *(concept for _, concept in formula[1:])}
            before = formula_mask(truth, formula)
            for operator, concept in product(OPERATORS, concepts):
                if concept in mine:
                    continue
                longer = (*formula, (operator, concept))
                mask = formula_mask(truth, longer)
                same = (mask == before).all() or (operator != "AND NOT" and (mask == truth[concept]).all())
                if same or not mask.any():
                    continue
                score = iou(fires, mask) * penalty ** (len(longer) - 1)
                if score > 0:
                    tried.append((-score, len(tried), longer))
        kept = {}
        for score, _, formula in sorted(tried, key=lambda one: one[0]):
            kept.setdefault(in_order(formula), (score, 0, formula))
        best = list(kept.values())[:beam]
    return [(-score, formula) for score, _, formula in best]


def in_order(formula: tuple) -> tuple:
    """The same for formulas that differ only in the order of what OR, or what AND, joins in a row."""
    if len(formula) == 1:
        return formula
    runs: list[list] = [[formula[1][0] == "OR", [(formula[0], False)]]]
    for operator, concept in formula[1:]:
        if runs[-1][0] != (operator == "OR"):
            runs.append([operator == "OR", []])
        runs[-1][1].append((concept, operator == "AND NOT"))
    return tuple((kind, tuple(sorted(literals))) for kind, literals in runs)
