"""Poolings against loops written from their definitions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronx.errors import UserError
from neuronx.recording.maps import POOLINGS, pooled

MAPS, TOKENS, FLAT = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 3), torch.randn(2, 3)


def slowly(x: torch.Tensor, how: str, prefix: int) -> list[list[float]]:
    """One image and unit at a time."""
    rows = []
    for image in x:
        units = image.flatten(1) if x.ndim == 4 else image.T if x.ndim == 3 else image[:, None]
        rules = {
            "avg": lambda u: sum(u) / len(u),
            "max": max,
            "first": lambda u: u[0],
            "patch": lambda u: sum(u[prefix:]) / len(u[prefix:]),
            "none": lambda u: u[0],
        }
        rows.append([float(rules[how](unit.tolist())) for unit in units])
    return rows


@given(
    case=st.sampled_from(
        [(MAPS, "avg"), (MAPS, "max"), (FLAT, "avg"), (FLAT, "max"), (FLAT, "none")]
        + [(TOKENS, how) for how in ("avg", "max", "first", "patch")]
    ),
    prefix=st.integers(0, 5),
)
def test_poolings_follow_their_definitions(case, prefix):
    x, how = case
    assert torch.allclose(pooled(x, how, prefix), torch.tensor(slowly(x, how, prefix)), atol=1e-6)


@pytest.mark.parametrize("how", POOLINGS)
@pytest.mark.parametrize("x", [FLAT, TOKENS, MAPS, torch.randn(2, 3, 1, 1)], ids=lambda x: f"{x.ndim}d")
def test_results_share_no_memory_with_what_later_layers_may_overwrite(x, how):
    x = x.clone()
    try:
        result = pooled(x, how)
    except UserError:
        return
    before = result.clone()
    x.zero_()
    assert len(result) == 2 and torch.equal(result, before)
    wide = {"positions": x[0].numel(), "patches": x[0].numel() - 3}  # of tokens, all but the class token
    assert result.shape[1] == wide.get(how, 3)


def test_half_precision_is_widened_before_it_is_summed():
    x = torch.full((1, 1, 64, 64), 1.001, dtype=torch.bfloat16)
    assert pooled(x, "avg").dtype == torch.float32
    assert pooled(x, "avg").item() == pytest.approx(float(x[0, 0, 0, 0]), rel=1e-6)


@pytest.mark.parametrize(
    ("x", "how", "message"),
    [
        (MAPS, "first", "pool=first needs tokens .* use avg or max"),
        (MAPS, "none", r"\(images, 3, 4, 5\); use avg or max"),
        (TOKENS, "none", "use avg, max, first or patch"),
        (FLAT, "patch", "use none"),
        (TOKENS, "patch", "needs tokens after the first 7"),
    ],
)
def test_a_pooling_that_does_not_fit_says_which_does(x, how, message):
    with pytest.raises(UserError, match=message):
        pooled(x, how, prefix=7)
