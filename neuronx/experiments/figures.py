"""Lines of accuracy, and how the experiments' figures are laid out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

INK = "#222222"


def random_orders(figure: "Figure", x: Sequence[float], random: Tensor) -> None:
    """Adds the mean of accuracies (T, X) in random orders, and the band from the lowest to the highest."""
    low, high = random.aminmax(dim=0)
    outline = [*(100 * high).tolist(), *(100 * low.flip(0)).tolist()]
    figure.add_scatter(
        x=[*x, *reversed(x)],
        y=outline,
        mode="lines",
        fill="toself",
        fillcolor="rgba(120,125,135,0.18)",
        line={"width": 0},
        hoverinfo="skip",
        name=f"{len(random)} random orders, lowest to highest",
    )
    line(figure, x, random.mean(0), "their mean", "#6b7280", dash="dot")


def line(
    figure: "Figure",
    x: Sequence[float],
    y: Tensor,
    name: str,
    colour: str,
    *,
    dash: str = "solid",
    width: float = 2,
    **more: Any,
) -> None:
    """Adds a line of accuracies (X,), in percent."""
    line = {"color": colour, "dash": dash, "width": width}
    figure.add_scatter(x=list(x), y=(100 * y).tolist(), name=name, mode="lines+markers", line=line, **more)


def laid_out(figure: "Figure", title: str, subtitle: str, x: str | None, y: str | None) -> "Figure":
    """The figure with its titles; axes that are None are left as they are."""
    if x is not None:
        figure.update_xaxes(title_text=x)
    if y is not None:
        figure.update_yaxes(title_text=y, rangemode="tozero")
    return figure.update_layout(
        template="plotly_white",
        title={"text": title, "subtitle": {"text": subtitle, "font_size": 13}},
        height=520,
        margin={"t": 110},
    )
