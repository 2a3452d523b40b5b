"""The figure of AP over time, drawn from the points of benchmarks/equal_cost.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from efpn_d2.visualization.figures import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_LINE_COLORS = ("#4c4c4c", "#0072b2")
_COLORS = ("#4c4c4c", "#cc79a7", "#d55e00", "#009e73", "#e69f00")
_SHAPES = ("s", "v", "*", "D", "^")
# Where the label of a mark is, in points from it: beside a line that rises, and its error bars.
_ABOVE = {"xytext": (-5, 5), "ha": "right"}
_BELOW = {"xytext": (5, -10), "ha": "left"}


class Mark(NamedTuple):
    """Where a detector is, and the standard deviation over its seeds."""

    time: float
    value: float
    spread: float = 0.0


Curve = Mapping[str, Mark]


def write_equal_cost_figure(
    path: str | Path, lines: Mapping[str, Curve], alone: Curve, labels: tuple[str, str]
) -> None:
    """Write one panel with lines of detectors at several scales, and others as points.

    Args:
        path: a PNG, PDF or SVG.
        lines: of each label its marks by scale; two at most.
        alone: marks by label; five at most.
        labels: of both axes.
    """
    write_figure(path, lambda: _draw(lines, alone, labels), dpi=130)


def _draw(lines: Mapping[str, Curve], alone: Curve, labels: tuple[str, str]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    ax = figure.subplots()
    # The first line is the lower one: its labels are below it.
    for i, (label, curve) in enumerate(lines.items()):
        if curve:
            _draw_line(ax, label, curve, _LINE_COLORS[i], _ABOVE if i else _BELOW)
    for i, (label, mark) in enumerate(alone.items()):
        size = 13 if _SHAPES[i] == "*" else 7.5
        style = {"color": _COLORS[i], "marker": _SHAPES[i], "markersize": size, "zorder": 4}
        ax.errorbar(*mark[:2], _spread([mark]), label=label, linestyle="none", capsize=2, **style)
    ax.set_xlabel(labels[0], fontsize=8.5)
    ax.set_ylabel(labels[1], fontsize=8.5)
    ax.tick_params(labelsize=8)
    ax.margins(x=0.06, y=0.1)
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=2, fontsize=8.5, frameon=False)
    return figure


def _draw_line(ax: "Axes", label: str, curve: Curve, color: str, place: dict[str, Any]) -> None:
    marks = sorted(curve.values())
    times, values, _ = zip(*marks, strict=True)
    style = {"color": color, "marker": "o", "markersize": 5, "linewidth": 1.4, "zorder": 3}
    ax.errorbar(times, values, _spread(marks), label=label, capsize=2, elinewidth=0.8, **style)
    for scale, mark in curve.items():
        text = {"textcoords": "offset points", "fontsize": 7.5, "color": color}
        ax.annotate(scale, mark[:2], **text, **place)


def _spread(marks: list[Mark]) -> list[float] | None:
    """Lengths of the error bars; None: there are none."""
    return [mark.spread for mark in marks] if any(mark.spread for mark in marks) else None
