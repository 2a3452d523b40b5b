"""Figure of a dataset's object sizes, their pyramid levels, and the overlap with anchors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from efpn_d2.visualization.figures import wrap_text

if TYPE_CHECKING:  # imported lazily
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_WIDTH = 8.0  # inches
_NOTE_SIZE = 8.5  # points
_BINS_PER_OCTAVE = 4
_MIN_OBJECTS = 5  # minimum number of objects in a bin for a point of a curve
_BAND_COLOURS = ("#fbe3c8", "#e3ecf7", "#d2e0f1", "#c0d4eb", "#aec8e5", "#9cbbdf")


class LevelBand(NamedTuple):
    """The sizes of the objects assigned to a level."""

    name: str  # e.g. "P'2"
    low: float
    high: float  # pixels of the network's input
    share: float  # fraction of all objects


class AnchorCurve(NamedTuple):
    """Overlaps with one choice of anchors."""

    label: str
    best: np.ndarray  # (G,) IoU of each object with its best anchor


def draw_dataset_figure(
    sizes: np.ndarray,
    bands: Sequence[LevelBand],
    curves: Sequence[AnchorCurve],
    thresholds: tuple[float, float],
    *,
    title: str,
    note: str,
) -> "Figure":
    """Draw a histogram of sizes over the levels, and the anchors' recall and mean IoU by size.

    Args:
        sizes: (G,) sqrt(w h) of the objects in pixels of the network's input.
        bands: levels from fine to coarse; empty: no levels are shown.
        curves: curves in drawing order.
        thresholds: two IoU thresholds for recall.
        title: text above the figure.
        note: text below the figure.
    """
    from matplotlib.figure import Figure

    note = wrap_text(note, _WIDTH - 0.6, _NOTE_SIZE)
    figure = Figure(figsize=(_WIDTH, 7.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(note, fontsize=_NOTE_SIZE, x=0.02, ha="left", color="0.25")
    axes = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [1.25, 1, 1]})
    edges = _edges(sizes)
    _draw_histogram(axes[0], sizes, edges, bands)
    _draw_recall(axes[1], sizes, edges, curves, thresholds)
    _draw_mean(axes[2], sizes, edges, curves)
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set_xlim(edges[0], edges[-1])
        ax.spines[["top", "right"]].set_visible(False)
    ticks = 2.0 ** np.arange(np.ceil(np.log2(edges[0])), np.floor(np.log2(edges[-1])) + 1)
    axes[2].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[2].set_xlabel("size of the object, √(w h), in pixels of the network's input")
    return figure


def _edges(sizes: np.ndarray) -> np.ndarray:
    """Return edges of bins, each a fraction of an octave, that contain all sizes."""
    low, high = np.log2([sizes.min(), sizes.max()]) * _BINS_PER_OCTAVE
    first, last = np.floor(low), np.floor(high) + 1
    return 2 ** (np.arange(first, last + 1) / _BINS_PER_OCTAVE)


def _draw_histogram(
    ax: "Axes", sizes: np.ndarray, edges: np.ndarray, bands: Sequence[LevelBand]
) -> None:
    counts, _, _ = ax.hist(sizes, edges.tolist(), color="#4a6a8a", edgecolor="white", linewidth=0.6)
    ax.set_ylim(0, np.max(counts) * 1.3)  # room for the names of levels
    ax.set_ylabel("objects")
    for band, colour in zip(bands, _BAND_COLOURS, strict=False):
        low, high = max(band.low, edges[0]), min(band.high, edges[-1])
        if low >= high:
            continue
        ax.axvspan(low, high, color=colour, zorder=0, linewidth=0)
        if np.log2(high / low) > 0.5:  # otherwise there is no room
            ax.text(
                np.sqrt(low * high),
                0.97,
                f"{band.name}\n{band.share:.0%}",
                transform=ax.get_xaxis_transform(),
                ha="center",
                va="top",
                fontsize=9,
            )


def _draw_recall(
    ax: "Axes",
    sizes: np.ndarray,
    edges: np.ndarray,
    curves: Sequence[AnchorCurve],
    thresholds: tuple[float, float],
) -> None:
    for i, curve in enumerate(curves):
        for threshold, style in zip(thresholds, ("--", "-"), strict=True):
            reached = (curve.best >= threshold).astype(float)
            label = f"{curve.label}, IoU ≥ {threshold:g}"
            _draw_by_size(ax, sizes, edges, reached, color=f"C{i}", linestyle=style, label=label)
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel("fraction of objects with\nan anchor of that IoU")
    _finish(ax)
    # The legend is above the axes, where it hides no curve; its colors apply to the axes below too.
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=8.5, frameon=False)


def _draw_mean(
    ax: "Axes", sizes: np.ndarray, edges: np.ndarray, curves: Sequence[AnchorCurve]
) -> None:
    for i, curve in enumerate(curves):
        _draw_by_size(ax, sizes, edges, curve.best, color=f"C{i}")
    ax.set_ylim(0, 1)
    ax.set_ylabel("mean IoU with\nthe best anchor")
    _finish(ax)


def _finish(ax: "Axes") -> None:
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)


def _draw_by_size(
    ax: "Axes", sizes: np.ndarray, edges: np.ndarray, values: np.ndarray, **style: Any
) -> None:
    """Plot the mean of the values in each bin of sizes with enough objects."""
    counts, _ = np.histogram(sizes, edges)
    sums, _ = np.histogram(sizes, edges, weights=values)
    enough = counts >= min(_MIN_OBJECTS, counts.max())
    middle = np.sqrt(edges[:-1] * edges[1:])
    ax.plot(middle[enough], (sums / np.maximum(counts, 1))[enough], marker="o", ms=3, **style)
