"""The figure of AP over training, drawn from the records of the ablation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efpn_d2.visualization.figures import write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_COLORS = ("#4c4c4c", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
Curve = tuple[list[int], list[float]]


def training_curve(record: Mapping[str, Any], metric: str) -> Curve:
    """Iterations since the start of the first stage, and the metric in percent.

    Stages that are not evaluated on the way add their iterations and no point; points without a
    value (a bin without objects) are left out.
    """
    done, iterations, values = 0, [], []
    for stage in record["stages"]:
        for point in stage["curve"]:
            value = point.get(metric)
            if value is not None:
                iterations.append(done + min(point["iterations"], stage["iterations"]))
                values.append(value)
        done += stage["iterations"]
    return iterations, values


def write_training_curves(
    path: str | Path,
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    metrics: Mapping[str, str],
) -> None:
    """Write one panel per metric, with a line per run and seed.

    Args:
        path: a PNG, PDF or SVG.
        runs: records of each label, one per seed.
        metrics: titles of the panels by metric.
    """
    write_figure(path, lambda: _draw(runs, metrics), dpi=130)


def _draw(runs: Mapping[str, Sequence[Mapping[str, Any]]], metrics: Mapping[str, str]) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(3.1 * len(metrics), 3.6), layout="constrained")
    axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    colors = dict(zip(runs, _COLORS, strict=False))
    for ax, (metric, title) in zip(axes, metrics.items(), strict=True):
        for i, (label, records) in enumerate(runs.items()):
            for record in records:
                ax.plot(
                    *training_curve(record, metric),
                    color=colors[label],
                    linewidth=1.4,
                    marker=".",
                    markersize=5,
                    zorder=3 + len(runs) - i,  # what others go on from lies above them
                )
        ax.set_title(title, fontsize=9, loc="left")
        ax.set_xlabel("iterations", fontsize=8.5)
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0)
        ax.tick_params(labelsize=8)
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("AP (%)", fontsize=8.5)
    figure.legend(
        handles=[Line2D([], [], label=k, color=colors[k], linewidth=1.4) for k in runs],
        loc="outside upper left",
        ncols=2 if len(runs) > 3 else len(runs),
        fontsize=8.5,
        frameon=False,
    )
    return figure
