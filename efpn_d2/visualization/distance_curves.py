"""Distance of the extended level to its target over the iterations of training."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml

from efpn_d2.visualization.figures import text_width, wrap_text, write_figure

if TYPE_CHECKING:  # imported where it is needed: importing this module stays cheap
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


logger = logging.getLogger(__name__)

# The logged terms in the order of their panels, and what each is.
TERMS = {
    "loss_distill_p2_global": "P'2, all elements ($L_{glob}$)",
    "loss_distill_p2_positive": "P'2, cells under boxes ($L_{pos}$)",
    "loss_distill_p3_global": "P'3, all elements ($L_{glob}$)",
    "loss_distill_p3_positive": "P'3, cells under boxes ($L_{pos}$)",
}

# Distinguishable with any colour vision [Okabe and Ito]; dashes for more runs than colours.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")

_PANEL_WIDTH, _PANEL_HEIGHT = 3.5, 2.3  # inches


class Curve(NamedTuple):
    """A term over training."""

    iterations: np.ndarray  # (T,) int, ascending
    values: np.ndarray  # (T,)


def read_distances(folder: str | Path) -> dict[str, Curve]:
    """Read the distances to the target that a stage has logged.

    Logged are losses: they are divided by the weights of the folder's ``config.yaml``, so that what
    comes back is L_glob and L_pos [paper Eq. 6, 7] and comparable between runs. An iteration that a
    resumed training has done again counts as the last time.

    Args:
        folder: output of a stage ``distill`` or ``joint``, with ``metrics.json``.

    Returns:
        Curves by the keys of ``TERMS``; a term that was not logged, or had weight 0, is left out.

    Raises:
        FileNotFoundError: there is no ``metrics.json``.
        ValueError: it has no distance to a target.
    """
    file = Path(folder, "metrics.json")
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no metrics.json in '{folder}': give the output folder of a stage distill or "
            "joint."
        )
    weights = _loss_weights(Path(folder, "config.yaml"))
    points: dict[str, dict[int, float]] = {term: {} for term in TERMS}
    for entry in _entries(file):
        for term, weight in weights.items():
            if term in entry and weight:
                points[term][int(entry["iteration"])] = entry[term] / weight
    curves = {
        term: Curve(*(np.array(x) for x in zip(*sorted(values.items()), strict=True)))
        for term, values in points.items()
        if values
    }
    if not curves:
        raise ValueError(
            f"'{file}' has no distance to a target (loss_distill_...): give the output folder of a "
            "stage distill or joint."
        )
    return curves


def _entries(file: Path) -> list[dict[str, float]]:
    entries, broken = [], 0
    for line in file.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # cut off where the training was killed
            broken += 1
        else:
            entries.append(entry)
    if broken:
        logger.warning(f"Left out {broken} incomplete line(s) of '{file}'.")
    return entries


def _loss_weights(config: Path) -> dict[str, float]:
    """By what each logged term was multiplied."""
    node = {}
    if config.is_file():
        node = (yaml.safe_load(config.read_text()) or {}).get("DISTILL", {})
    else:
        logger.warning(f"There is no '{config}': the weights of the losses are taken to be 1.")
    both, positive = node.get("LOSS_WEIGHT", 1.0), node.get("POSITIVE_WEIGHT", 1.0)
    return {term: both * (positive if term.endswith("positive") else 1.0) for term in TERMS}


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the ``window`` points around each; towards the ends of as many as both sides have.

    Args:
        values: (T,).
        window: odd; 1 changes nothing.
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    i = np.arange(len(values))
    half = np.minimum(window // 2, np.minimum(i, len(values) - 1 - i))
    return (sums[i + half + 1] - sums[i - half]) / (2 * half + 1)


def write_distance_curves(
    path: str | Path, runs: Mapping[str, Mapping[str, Curve]], smoothing: int = 3
) -> None:
    """Write one figure with a panel per term and a line per run.

    Args:
        path: a PNG, PDF or SVG; its folder is made.
        runs: the curves of each run, by its label.
        smoothing: points of the running mean, odd.

    Raises:
        ValueError: no run, even smoothing, or another kind of file.
    """
    if not runs or not any(runs.values()):
        raise ValueError("A figure of distances needs at least one run.")
    if smoothing < 1 or smoothing % 2 == 0:
        raise ValueError(f"The smoothing is over {smoothing} points: use an odd number from 1 on.")
    write_figure(path, lambda: draw_distance_curves(runs, smoothing))


def draw_distance_curves(runs: Mapping[str, Mapping[str, Curve]], smoothing: int = 3) -> "Figure":
    """The figure of :func:`write_distance_curves`; faint lines are the points before smoothing."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    styles = {label: _style(i) for i, label in enumerate(runs)}
    terms = [term for term in TERMS if any(term in curves for curves in runs.values())]
    columns = min(len(terms), 2)
    rows = -(-len(terms) // columns)
    width = columns * _PANEL_WIDTH + 0.3
    legend_columns = max(int(width / (0.6 + max(text_width(label, 8.5) for label in runs))), 1)
    legend_columns = min(legend_columns, len(runs))
    height = rows * _PANEL_HEIGHT + 0.55 + 0.18 * -(-len(runs) // legend_columns)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey="row")
    for ax, term in zip(grid.flat, terms, strict=False):
        for label, curves in runs.items():
            if term in curves:
                _draw_curve(ax, curves[term], styles[label], smoothing)
        _finish_panel(ax, TERMS[term])
    for ax in grid.flat[len(terms) :]:
        ax.set_axis_off()
    for ax in grid[:, 0]:
        ax.set_ylim(bottom=0)  # of the row; only now, for it fixes the upper end as it is
        ax.set_ylabel("mean absolute difference", fontsize=8.5)
    figure.legend(
        handles=[Line2D([], [], label=label, **style) for label, style in styles.items()],
        loc="outside upper left",
        ncols=legend_columns,
        fontsize=8.5,
        frameon=False,
    )
    note = "On training batches, as logged (median of 20 iterations)"
    if smoothing > 1:
        note += f"; bold: running mean of {smoothing} logged points"
    figure.supxlabel(wrap_text(f"{note}.", width, 7.5), fontsize=7.5, color="0.25")
    return figure


def _style(i: int) -> dict[str, Any]:
    color = _COLORS[i % len(_COLORS)]
    return {"color": color, "linestyle": _DASHES[i // len(_COLORS) % len(_DASHES)]}


def _draw_curve(ax: "Axes", curve: Curve, style: dict[str, Any], smoothing: int) -> None:
    if smoothing > 1:
        ax.plot(*curve, color=style["color"], linewidth=0.7, alpha=0.35)
    marker = "." if len(curve.values) == 1 else None  # a line of one point is not seen
    values = running_mean(curve.values, smoothing)
    ax.plot(curve.iterations, values, linewidth=1.6, marker=marker, **style)


def _finish_panel(ax: "Axes", title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_title(title, fontsize=9, loc="left")
    ax.set_xlabel("iteration", fontsize=8.5)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    ax.tick_params(labelsize=8)
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
