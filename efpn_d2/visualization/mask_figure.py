"""Masks of the foreground-background separation module, laid over their image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from efpn_d2.visualization.feature_figure import FeatureLine, FeaturePanel, draw_feature_figure

if TYPE_CHECKING:  # imported where it is needed: importing this module stays cheap
    from matplotlib.figure import Figure


_OPACITY = 0.6  # the image's edges are seen, and colours are kept apart
_BOX_SCALE = 0.5  # a box's line hides cells beside small objects


class LevelMask(NamedTuple):
    """The mask of one level of a pyramid, on one image."""

    level: str  # the level's name, e.g. "p2_prime"
    stride: int  # pixels per cell
    gain: float  # gamma
    values: np.ndarray  # (h, w), from 0 to 1
    contrast: float | None = None  # see foreground_contrast; None: no box, or nothing but boxes


def mask_line(
    masks: Sequence[LevelMask],
    image: np.ndarray,
    size: tuple[float, float],
    boxes: np.ndarray,
    *,
    caption: str = "",
    window: tuple[float, float, float, float] | None = None,
) -> FeatureLine:
    """The panels of an image, one per mask, on a scale from 0 to 1.

    Args: positions are in pixels of the network's input.
        masks: one or more.
        image: (H, W, 3) uint8 RGB at any scale.
        size: width and height of the image.
        boxes: (G, 4) XYXY.
        caption: beneath the image.
        window: XYXY that is shown; None: all.
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
    """Draw the lines of images below each other.

    Args:
        lines: see :func:`mask_line`.
        model: what to call the model in the note.

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
        f"Masks of {model} over the grey image, all on one scale: FBSM multiplies a level by "
        f"1 + γ mask.{contrast}"
    )
    return draw_feature_figure(lines, note.replace("$", r"\$"))


def _level_name(level: str) -> str:
    """``p2`` -> P2, ``p2_prime`` -> P'2."""
    return level.replace("p", "P'" if level.endswith("_prime") else "P", 1).removesuffix("_prime")
