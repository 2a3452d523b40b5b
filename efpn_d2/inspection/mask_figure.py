"""Draw the masks of the foreground-background separation module over their image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from efpn_d2.inspection.feature_figure import FeatureLine, FeaturePanel, draw_feature_figure

if TYPE_CHECKING:  # imported lazily
    from matplotlib.figure import Figure


_OPACITY = 0.6  # edges of the image are visible, and colors distinguishable
_BOX_SCALE = 0.5  # the line of a box hides cells beside small objects


class LevelMask(NamedTuple):
    """The mask of one pyramid level for one image."""

    level: str  # the level's name, e.g. "p2_prime"
    stride: int  # pixels per cell
    gain: float  # gamma
    values: np.ndarray  # (h, w), from 0 to 1
    contrast: float | None = None  # see foreground_contrast; None: no box, or only boxes


def mask_line(
    masks: Sequence[LevelMask],
    image: np.ndarray,
    size: tuple[float, float],
    boxes: np.ndarray,
    *,
    caption: str = "",
    window: tuple[float, float, float, float] | None = None,
) -> FeatureLine:
    """Build the panels of an image, one per mask, on a scale from 0 to 1.

    Positions are in pixels of the network's input.

    Args:
        masks: one or more masks.
        image: (H, W, 3) uint8 RGB at any scale.
        size: width and height of the image.
        boxes: (G, 4) XYXY.
        caption: text below the image.
        window: XYXY of the visible part; None: all.
    """
    panels = [
        FeaturePanel(
            title=f"{_level_name(mask.level)}, stride {mask.stride}, γ {mask.gain:.2g}",
            values=mask.values,
            caption="" if mask.contrast is None else f"contrast {mask.contrast:+.2f}",
            cell=mask.stride,
        )
        for mask in masks
    ]
    return FeatureLine(
        panels=panels,
        scale_label="mask",
        cell=masks[0].stride,
        size=size,
        boxes=boxes,
        image=image,
        caption=caption,
        window=window,
        limits=(0.0, 1.0),
        opacity=_OPACITY,
        box_scale=_BOX_SCALE,
    )


def draw_mask_figure(lines: Sequence[FeatureLine], model: str) -> "Figure":
    """Draw the rows of several images.

    Args:
        lines: see :func:`mask_line`.
        model: name of the model in the note.

    Returns:
        A figure to save with ``figure.savefig``.

    Raises:
        ValueError: see :func:`draw_feature_figure`.
    """
    contrast = ""
    if any(panel and panel.caption for line in lines for panel in line.panels):
        contrast = (
            " Contrast: mean mask in the cells that ground-truth boxes cover minus that in all "
            "others, of the whole image."
        )
    note = (
        f"Masks of {model} over the gray image, all on one scale: FBSM multiplies a level by 1 + "
        f"γ mask.{contrast}"
    )
    return draw_feature_figure(lines, note.replace("$", r"\$"))


def _level_name(level: str) -> str:
    return level.replace("p", "P'" if level.endswith("_prime") else "P", 1).removesuffix("_prime")
