"""From a layout to the picture a camera would take of it, and to its COCO annotations."""

from typing import Any

import numpy as np

from efpn_d2.data.datasets.synthetic.background import (
    paint_background,
    paint_distractors,
    paint_posts,
)
from efpn_d2.data.datasets.synthetic.config import SCALES, SyntheticConfig
from efpn_d2.data.datasets.synthetic.glyphs import paint
from efpn_d2.data.datasets.synthetic.layout import Layout, image_rng


def render_scene(config: SyntheticConfig, index: int, layout: Layout) -> np.ndarray:
    """Compose image ``index`` before the sensor: the same for both variants.

    Returns:
        (scene_size, scene_size, 3) uint8, BGR.
    """
    import cv2

    rng = image_rng(config, index, "background")
    canvas = paint_background(rng, config.scene_size, config.clutter)
    paint_distractors(rng, canvas, layout.signs, config.clutter)
    paint_posts(rng, canvas, layout.signs)
    for sign in layout.signs:
        paint(canvas, sign.layers)
    for occluder in layout.occluders:
        paint(canvas, [occluder])
    rng = image_rng(config, index, "optics")
    sigma = 2 * rng.uniform(0, config.max_blur)  # student pixels to scene pixels
    if sigma > 0.1:
        canvas = cv2.GaussianBlur(canvas, (0, 0), sigma)
    jitter = config.brightness_jitter
    return cv2.convertScaleAbs(canvas, alpha=rng.uniform(1 - jitter, 1 + jitter / 2))


def capture(config: SyntheticConfig, index: int, scene: np.ndarray) -> np.ndarray:
    """Take the picture at the variant's resolution, with sensor noise of its own.

    Args:
        config: decides on the variant.
        index: of the image.
        scene: (scene_size, scene_size, 3) uint8.

    Returns:
        (file_size, file_size, 3) uint8: for native1x, the mean of each 2x2 pixels of the scene.
    """
    import cv2

    if config.file_size != config.scene_size:
        size = (config.file_size, config.file_size)
        scene = cv2.resize(scene, size, interpolation=cv2.INTER_AREA)
    sigma = image_rng(config, index, "noise level").uniform(0, config.max_noise)
    rng = image_rng(config, index, f"noise of {config.variant}")
    noise = rng.standard_normal(scene.shape, dtype=np.float32)
    return np.clip(np.rint(scene + np.float32(sigma) * noise), 0, 255).astype(np.uint8)


def annotate(config: SyntheticConfig, layout: Layout) -> list[dict[str, Any]]:
    """The COCO annotations of a layout, without ``id`` and ``image_id``.

    ``bbox`` and ``segmentation`` are those of the whole sign, parts behind an occluder included, in
    file pixels. ``area`` is w * h of the box, so that sqrt(area) is the size the set is drawn by.
    ``visible`` (an extra key) is the visible share of the sign.
    """
    factor = config.scale / max(SCALES.values())
    annotations = []
    for sign in layout.signs:
        x0, y0, x1, y1 = (sign.bounds * factor).tolist()
        annotations.append(
            {
                "category_id": sign.category + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
                "segmentation": [(sign.outline * factor).ravel().tolist()],
                "visible": round(sign.visible, 3),
            }
        )
    return annotations
