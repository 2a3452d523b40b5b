"""Settings that a data set asks for; each rule is also named where its result is printed."""

import copy
import math
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode

from efpn_d2.analysis.anchor_search import AnchorSearch
from efpn_d2.analysis.anchors import AnchorLevel
from efpn_d2.analysis.detector import P2_PRIME, DetectorGeometry
from efpn_d2.analysis.objects import ObjectTable

Settings = dict[str, Any]

# Eq. 2 with minimum level 1: below it FPN's rule would choose the level under P2.
_PAPER_SMALL_BOX_SIZE = 56.0
_LEAST_SHARE = 0.2  # of the objects, for each of the two heads
_SMALLEST = 0.1  # quantile of the sizes that the input scale is chosen for
_MOST_ENLARGED = 2.0  # pixels of the input per pixel of the file
_DETECTIONS = 100  # COCO's


class ScaleAdvice(NamedTuple):
    """An input scale, and what it was chosen by."""

    min_size: int
    max_size: int
    factor: float  # to the present scale; 1: keep it
    needed: float  # pixels that an object should have, see sure_size
    smallest: float  # pixels that the tenth smallest of a hundred objects has now
    capped: bool  # the file's pixels end before the need does


def advise_anchor_sizes(cfg: CfgNode, geometry: DetectorGeometry, objects: ObjectTable) -> Settings:
    """Settings with the anchor sizes that :class:`AnchorSearch` finds.

    Args:
        cfg: the config that ``geometry`` describes.
        geometry: its detector.
        objects: of the data set, at the scale of ``cfg``.
    """
    ratios = [_ratios(level) for level in geometry.anchors]
    sizes = AnchorSearch(
        objects,
        [level.stride for level in geometry.anchors],
        ratios,
        sizes_per_level=[
            max(len(level.boxes) // len(own), 1)
            for level, own in zip(geometry.anchors, ratios, strict=True)
        ],
        offset=cfg.MODEL.ANCHOR_GENERATOR.OFFSET,
        size_divisibility=geometry.size_divisibility,
        thresholds=geometry.thresholds,
        start=[_least_size(level) for level in geometry.anchors],
    ).run()
    return _anchor_settings(cfg, geometry, sizes)


def present_anchor_sizes(cfg: CfgNode, geometry: DetectorGeometry) -> Settings:
    """Settings with the anchor sizes that a config has, for the same keys.

    Args:
        cfg: the config that ``geometry`` describes.
        geometry: its detector.
    """
    settings = {"ANCHOR_GENERATOR": {"SIZES": cfg.MODEL.ANCHOR_GENERATOR.SIZES}}
    if _has_own_key(cfg, geometry):
        settings["EFPN"] = {"P2_PRIME_ANCHOR_SIZES": cfg.MODEL.EFPN.P2_PRIME_ANCHOR_SIZES}
    return copy.deepcopy(settings)


def _anchor_settings(
    cfg: CfgNode, geometry: DetectorGeometry, sizes: list[list[float]]
) -> Settings:
    """By their keys, of sizes of all levels from fine to coarse."""
    if _has_own_key(cfg, geometry):
        first, *sizes = sizes
        return {
            "EFPN": {"P2_PRIME_ANCHOR_SIZES": first},
            "ANCHOR_GENERATOR": {"SIZES": sizes},
        }
    return {"ANCHOR_GENERATOR": {"SIZES": sizes}}


def _has_own_key(cfg: CfgNode, geometry: DetectorGeometry) -> bool:
    """Whether the sizes of P'2's anchors are not among those of the other levels."""
    of_rpn = geometry.anchors[0].name == P2_PRIME and bool(geometry.pooled)
    return of_rpn and P2_PRIME not in cfg.MODEL.RPN.IN_FEATURES


def advise_small_box_size(sizes: np.ndarray) -> float:
    """The paper's 56 pixels (Eq. 2), moved so that each head has a fifth of the objects or more.

    Args:
        sizes: (G,) sqrt(w h) of objects in pixels of the network's input.
    """
    low, high = np.quantile(sizes, (_LEAST_SHARE, 1 - _LEAST_SHARE))
    return float(max(round(np.clip(_PAPER_SMALL_BOX_SIZE, low, high)), 1))


def sure_size(stride: float, threshold: float) -> float:
    """Side of the smallest square that has an anchor with that IoU wherever it lies.

    The anchor is of the same size, and its centre up to half a cell away in x and y.
    """
    return stride / (2 * (1 - math.sqrt(2 * threshold / (1 + threshold))))


def advise_input_scale(
    cfg: CfgNode, geometry: DetectorGeometry, objects: ObjectTable
) -> ScaleAdvice:
    """The scale at which nine of ten objects have :func:`sure_size` on the finest anchor level.

    Never a smaller one than the config's, and none that enlarges the files more than twice.
    """
    needed = sure_size(min(level.stride for level in geometry.anchors), geometry.thresholds[1])
    smallest = float(np.quantile(objects.sizes, _SMALLEST))
    limit = max(_MOST_ENLARGED / float(np.median(objects.scales)), 1.0)
    wanted = max(needed / smallest, 1.0)
    factor = min(wanted, limit)
    min_size, max_size = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    if min_size == 0:  # images are not scaled
        min_size = int(np.median(objects.image_sizes.min(axis=1)))
        max_size = int(objects.image_sizes.max())
    if factor < 1.05:
        return ScaleAdvice(min_size, max_size, 1.0, needed, smallest, wanted > factor)
    min_size, max_size = (math.ceil(side * factor / 8) * 8 for side in (min_size, max_size))
    return ScaleAdvice(min_size, max_size, factor, needed, smallest, wanted > factor)


def advise_detections(objects_per_image: np.ndarray) -> int:
    """COCO's 100, or more: all objects of the fullest image, and twice those of all but 1 %.

    Args:
        objects_per_image: (N,).
    """
    most = max(objects_per_image.max(), 2 * np.quantile(objects_per_image, 0.99))
    return max(_DETECTIONS, math.ceil(most / 50) * 50)


def _least_size(level: AnchorLevel) -> float:
    sides = level.boxes[:, 2:] - level.boxes[:, :2]
    return float(np.sqrt(sides.prod(axis=1)).min().round(2))


def _ratios(level: AnchorLevel) -> list[float]:
    """h / w of a level's anchors."""
    sides = level.boxes[:, 2:] - level.boxes[:, :2]
    return np.unique((sides[:, 1] / sides[:, 0]).round(4)).tolist()
