"""Places in a picture as features of positions: corners, borders, the nine parts of a picture."""

import torch
from torch import Tensor


def places(height: int, width: int, border: int = 1) -> dict[str, Tensor]:
    """Where each place is on a grid of positions: name -> (height, width) bool.

    Places that lie on the same positions as an earlier one, on all positions or on none are left out.

    Args:
        height: Rows of positions.
        width: Columns.
        border: Positions that make a border, on each side.
    """
    y = torch.arange(height)[:, None].expand(height, width)
    x = torch.arange(width).expand(height, width)
    sides = {"top": y < border, "bottom": y >= height - border}, {"left": x < border, "right": x >= width - border}
    thirds = (
        {"upper": y < height / 3, "": (y >= height / 3) & (y < 2 * height / 3), "lower": y >= 2 * height / 3},
        {"left": x < width / 3, "middle": (x >= width / 3) & (x < 2 * width / 3), "right": x >= 2 * width / 3},
    )
    corners = {f"{v} {h} corner": sides[0][v] & sides[1][h] for v in sides[0] for h in sides[1]}
    edges = {f"{name} border": where for side in sides for name, where in side.items()}
    border_all = torch.stack(list(edges.values())).any(0)
    parts = {f"{v} {h} part".strip(): thirds[0][v] & thirds[1][h] for v in thirds[0] for h in thirds[1]}
    named = {
        **corners,
        "corners": torch.stack(list(corners.values())).any(0),
        **edges,
        "border": border_all,
        "away from the border": ~border_all,
        **parts,
        "upper third": thirds[0]["upper"],
        "lower third": thirds[0]["lower"],
        "left third": thirds[1]["left"],
        "right third": thirds[1]["right"],
    }
    kept: dict[str, Tensor] = {}
    for name, where in named.items():
        if where.any() and not where.all() and not any(torch.equal(where, other) for other in kept.values()):
            kept[name] = where
    return kept
