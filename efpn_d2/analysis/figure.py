"""An analysis as a figure."""

from pathlib import Path

import numpy as np

from efpn_d2.analysis.analyze import DatasetAnalysis
from efpn_d2.analysis.detector import P2_PRIME, DetectorGeometry
from efpn_d2.visualization.dataset_figure import AnchorCurve, LevelBand, draw_dataset_figure
from efpn_d2.visualization.figures import write_figure


def write_analysis_figure(path: str | Path, analysis: DatasetAnalysis) -> None:
    """Draw object sizes, levels and anchors.

    Args:
        path: of a PNG, PDF or SVG.
        analysis: of :func:`analyze_dataset`.
    """
    low, high = analysis.geometry.thresholds
    curves = [
        AnchorCurve("anchors now", analysis.overlaps.best),
        AnchorCurve("advised", analysis.advised_overlaps.best),
    ]
    objects = analysis.objects
    title = (
        f"{analysis.name}: {len(objects.boxes)} objects in {len(objects.image_sizes)} images, "
        f"INPUT.MIN_SIZE_TEST {analysis.cfg.INPUT.MIN_SIZE_TEST}"
    ).replace("$", r"\$")
    bands = level_bands(analysis.geometry, objects.boxes)
    note = (
        f"Anchors of IoU {high:g} or more are trained as objects, those below {low:g} as "
        "background; an object's best anchor is always trained as an object."
    )
    if bands:
        note = f"Colours and percentages: the level that the heads read an object from now. {note}"
    write_figure(
        path,
        lambda: draw_dataset_figure(
            objects.sizes, bands, curves, (low, high), title=title, note=note
        ),
    )


def level_bands(geometry: DetectorGeometry, boxes: np.ndarray) -> list[LevelBand]:
    """The sizes that the heads read from each level, by asking for squares of all sizes."""
    if not geometry.read_levels:
        return []
    sizes = 2 ** np.arange(0, 13, 1 / 128)
    squares = np.stack([np.zeros_like(sizes), np.zeros_like(sizes), sizes, sizes], axis=1)
    levels = geometry.assign_levels(squares)
    shares = np.bincount(geometry.assign_levels(boxes), minlength=len(geometry.read_levels))
    starts = {int(level): float(sizes[levels == level][0]) for level in np.unique(levels)}
    used = sorted(starts)
    ends = [*(starts[level] for level in used[1:]), float("inf")]
    return [
        LevelBand(
            _display_name(geometry.read_levels[level]),
            starts[level],
            end,
            shares[level] / len(boxes),
        )
        for level, end in zip(used, ends, strict=True)
    ]


def _display_name(level: str) -> str:
    return "P'2" if level == P2_PRIME else level.upper()
