"""Similarities of boxes that replace IoU in the label assignment of tiny objects.

The IoU of an anchor with a tiny object falls to 0 within a few pixels. These similarities fall
slowly with the distance of the centers and the difference of the sides, so tiny objects get
positive anchors, too. They are used in training only.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor

from efpn_d2.config import require_node

# Minimum of a sum of sides in a denominator, in pixels.
_LEAST_SIDE = 1e-6

#: Anchors below the first threshold are background, those from the second on are objects. "rpn":
#: the values in the code of both papers. "retinanet": RetinaNet's own, which the code of NWD keeps;
#: for SimD no values for dense detectors are known to us, so they are ours.
PUBLISHED_THRESHOLDS = {"rpn": (0.3, 0.7), "retinanet": (0.4, 0.5)}

_KEY = "MODEL.EFPN.SIMILARITY"


def pairwise_nwd(boxes1: Tensor, boxes2: Tensor, constant: float) -> Tensor:
    """Compute the normalized Wasserstein distance of boxes as Gaussians: exp(-W2 / C).

    W2^2 is the squared distance of the centers plus that of the halved sides. Source: Wang et al.,
    "A Normalized Gaussian Wasserstein Distance for Tiny Object Detection" (arXiv 2110.13389), and
    its code jwwangchn/NWD.

    Args:
        boxes1: (M, 4) XYXY, in pixels of the network's input.
        boxes2: (N, 4) XYXY, in the same pixels.
        constant: C, in the same pixels: the mean sqrt(w h) of a dataset's objects.

    Returns:
        (M, N), from 0 to 1; 1 for equal boxes.

    Raises:
        ValueError: if ``constant`` is not a positive number.
    """
    _check_constants("constant", [constant])
    first, second = (torch.cat([c, s / 2], dim=1) for c, s in map(_split, (boxes1, boxes2)))
    # The mode that multiplies matrices is inaccurate for close boxes.
    distances = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.div_(-constant).exp_()


def pairwise_simd(boxes1: Tensor, boxes2: Tensor, m: float, n: float) -> Tensor:
    """Compute the similarity distance of boxes: exp(-(location + shape)).

    location = sqrt((m dx / (w1 + w2))^2 + (n dy / (h1 + h2))^2) with the distance (dx, dy) of the
    centers; shape is the same with the differences of the sides. Source: Shi et al., "Similarity
    Distance-Based Label Assignment for Tiny Object Detection" (arXiv 2407.02394), as in its code
    cszzshi/SimD. Sums of sides are at least 1e-6. [ours]

    Args:
        boxes1: (M, 4) XYXY.
        boxes2: (N, 4) XYXY, in the same units.
        m: mean of abs(dx) / (w1 + w2) over all pairs of an object and an anchor of its image in a
            dataset (Eqs. 4 and 5 of SimD, known to us from a description), computed by
            :func:`efpn_d2.dataset_advice.similarity.simd_constants`.
        n: mean of abs(dy) / (h1 + h2) over the same pairs.

    Returns:
        (M, N), from 0 to 1; 1 for equal boxes.

    Raises:
        ValueError: if ``m`` or ``n`` is not a positive number.
    """
    _check_constants("m and n", [m, n])
    (centres1, sides1), (centres2, sides2) = _split(boxes1), _split(boxes2)
    location, shape = [], []
    for axis, factor in enumerate((m, n)):
        width1, width2 = sides1[:, None, axis], sides2[None, :, axis]
        scale = factor / (width1 + width2).clamp_(min=_LEAST_SIDE)
        location.append((centres1[:, None, axis] - centres2[None, :, axis]).mul_(scale))
        shape.append((width1 - width2).mul_(scale))
    return torch.hypot(*location).add_(torch.hypot(*shape)).neg_().exp_()


def _split(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return centers and sides, each (R, 2), of boxes (R, 4) XYXY."""
    corner, opposite = boxes[:, :2], boxes[:, 2:]
    return (corner + opposite) / 2, opposite - corner


def _check_constants(name: str, values: Sequence[float]) -> None:
    if not all(isinstance(x, int | float) and 0 < x < math.inf for x in values):
        raise ValueError(f"{name} must be positive, but the value is {list(values)}.")


class _Kind(NamedTuple):
    function: Callable[..., Tensor]
    constants: str
    """Names of the constants in ``SIMILARITY_CONSTANTS``, for messages."""
    number: int


#: Values of ``MODEL.EFPN.SIMILARITY`` besides "iou".
SIMILARITIES = {
    "nwd": _Kind(pairwise_nwd, "C", 1),
    "simd": _Kind(pairwise_simd, "m and n", 2),
}


class Similarity(NamedTuple):
    """A similarity of boxes with its constants and thresholds."""

    name: str
    constants: tuple[float, ...]
    thresholds: tuple[float, float]
    """Anchors below the first are background, those from the second on are objects."""

    def __call__(self, boxes1: Tensor, boxes2: Tensor) -> Tensor:
        """Compute (M, N) from (M, 4) and (N, 4) boxes XYXY in pixels of the network's input."""
        return SIMILARITIES[self.name].function(boxes1, boxes2, *self.constants)


def similarity_settings(cfg: CfgNode, detector: str) -> Similarity | None:
    """Return the similarity that the config selects for label assignment; None: IoU.

    Args:
        cfg: a config with ``MODEL.EFPN``.
        detector: a key of ``PUBLISHED_THRESHOLDS``, for the default thresholds.

    Raises:
        ValueError: if the name is unknown, the number of constants is wrong, or the thresholds are
            not two ascending numbers.
        KeyError: if ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN")
    name, constants, thresholds = (
        node[key] for key in ("SIMILARITY", "SIMILARITY_CONSTANTS", "SIMILARITY_THRESHOLDS")
    )
    if name == "iou":
        for key in ("CONSTANTS", "THRESHOLDS"):
            if node[f"SIMILARITY_{key}"]:
                raise ValueError(
                    f"{_KEY}_{key} is {node[f'SIMILARITY_{key}']}, but it is ignored if {_KEY} is "
                    "iou: set it to []."
                )
        return None
    if name not in SIMILARITIES:
        raise ValueError(f"{_KEY} is {name}: use one of iou, {', '.join(SIMILARITIES)}.")
    kind = SIMILARITIES[name]
    if len(constants) != kind.number:
        raise ValueError(
            f"{_KEY}_CONSTANTS is {constants}, but {name} needs {kind.number}: {kind.constants}, "
            "which tools/analyze_dataset.py prints."
        )
    _check_constants(f"{_KEY}_CONSTANTS", constants)
    low, high = _thresholds(thresholds or PUBLISHED_THRESHOLDS[detector])
    return Similarity(name, tuple(map(float, constants)), (low, high))


def _thresholds(values: Sequence[float]) -> tuple[float, float]:
    numbers = len(values) == 2 and all(isinstance(x, int | float) for x in values)
    if not numbers or not 0 < values[0] <= values[1] <= 1:
        raise ValueError(
            f"{_KEY}_THRESHOLDS is {list(values)}: use two ascending similarities above 0 and up "
            "to 1, like [0.3, 0.7], or []."
        )
    return float(values[0]), float(values[1])
