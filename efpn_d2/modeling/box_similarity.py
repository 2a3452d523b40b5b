"""Similarities of boxes that tell tiny ones apart where their IoU is 0, in place of IoU.

IoU of an anchor with a tiny object falls to 0 within a few pixels. The similarities here fall
slowly, with the distance of the centres and the difference of the sides, so that tiny objects get
positive anchors, too. Only training reads them.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor

from efpn_d2.config import require_node

# Pixels; sums of sides are at least that large where they divide.
_LEAST_SIDE = 1e-6

#: Below the first an anchor is background, from the second on it is an object. "rpn": those of both
#: articles' code. "retinanet": RetinaNet's own, which the code of NWD leaves as they are; of SimD
#: we know none for dense detectors, so for it they are ours.
PUBLISHED_THRESHOLDS = {"rpn": (0.3, 0.7), "retinanet": (0.4, 0.5)}

_KEY = "MODEL.EFPN.SIMILARITY"


def pairwise_nwd(boxes1: Tensor, boxes2: Tensor, constant: float) -> Tensor:
    """Normalised Wasserstein distance of boxes as Gaussians: exp(-W2 / C).

    W2^2 is the squared distance of the centres plus that of the halved sides. Source: Wang et al.,
    "A Normalized Gaussian Wasserstein Distance for Tiny Object Detection" (arXiv 2110.13389), and
    its code jwwangchn/NWD.

    Args:
        boxes1, boxes2: (M, 4) and (N, 4) XYXY, pixels of the network's input.
        constant: C, in the same pixels: the mean sqrt(w h) of a data set's objects.

    Returns:
        (M, N), from 0 to 1; 1 for equal boxes.

    Raises:
        ValueError: ``constant`` is no positive number.
    """
    _check_constants("constant", [constant])
    first, second = (torch.cat([c, s / 2], dim=1) for c, s in map(_split, (boxes1, boxes2)))
    # The mode that multiplies matrices is inexact for boxes that are close.
    distances = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.div_(-constant).exp_()


def pairwise_simd(boxes1: Tensor, boxes2: Tensor, m: float, n: float) -> Tensor:
    """Similarity distance of boxes: exp(-(location + shape)).

    location = sqrt((m dx / (w1 + w2))^2 + (n dy / (h1 + h2))^2) of the centres' distance (dx, dy),
    and shape is the same of the differences of the sides. Source: Shi et al., "Similarity
    Distance-Based Label Assignment for Tiny Object Detection" (arXiv 2407.02394), as its code
    cszzshi/SimD has them. Sums of sides below 1e-6 count as 1e-6. [ours]

    Args:
        boxes1, boxes2: (M, 4) and (N, 4) XYXY in equal units.
        m, n: the means of abs(dx) / (w1 + w2) and abs(dy) / (h1 + h2) over all pairs of an object
            and an anchor of its image in a data set (the article's Eqs. 4 and 5, known to us from
            a description of them), which :func:`efpn_d2.dataset_advice.similarity.simd_constants`
            computes.

    Returns:
        (M, N), from 0 to 1; 1 for equal boxes.

    Raises:
        ValueError: ``m`` or ``n`` is no positive number.
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
    """Centres and sides, each (R, 2), of boxes (R, 4) XYXY."""
    corner, opposite = boxes[:, :2], boxes[:, 2:]
    return (corner + opposite) / 2, opposite - corner


def _check_constants(name: str, values: Sequence[float]) -> None:
    if not all(isinstance(x, int | float) and 0 < x < math.inf for x in values):
        raise ValueError(f"{name}: {list(values)}, but positive numbers are needed.")


class _Kind(NamedTuple):
    function: Callable[..., Tensor]
    constants: str
    """What ``SIMILARITY_CONSTANTS`` lists, for messages."""
    number: int


#: What ``MODEL.EFPN.SIMILARITY`` may be besides "iou".
SIMILARITIES = {
    "nwd": _Kind(pairwise_nwd, "C", 1),
    "simd": _Kind(pairwise_simd, "m and n", 2),
}


class Similarity(NamedTuple):
    """A similarity of boxes with its constants, and the thresholds that belong to it."""

    name: str
    constants: tuple[float, ...]
    thresholds: tuple[float, float]
    """Background is below the first, an object from the second on."""

    def __call__(self, boxes1: Tensor, boxes2: Tensor) -> Tensor:
        """(M, N) of (M, 4) and (N, 4) boxes XYXY in pixels of the network's input."""
        return SIMILARITIES[self.name].function(boxes1, boxes2, *self.constants)


def similarity_settings(cfg: CfgNode, detector: str) -> Similarity | None:
    """What the config says of the similarity for label assignment; None: IoU.

    Args:
        cfg: a config with ``MODEL.EFPN``.
        detector: one of ``PUBLISHED_THRESHOLDS``, which has the thresholds unless the config has.

    Raises:
        ValueError: the name is unknown, the constants are not those it needs, or the thresholds are
            not two ascending ones.
        KeyError: ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN")
    name, constants, thresholds = (
        node[key] for key in ("SIMILARITY", "SIMILARITY_CONSTANTS", "SIMILARITY_THRESHOLDS")
    )
    if name == "iou":
        for key in ("CONSTANTS", "THRESHOLDS"):
            if node[f"SIMILARITY_{key}"]:
                raise ValueError(
                    f"{_KEY}_{key} is {node[f'SIMILARITY_{key}']}, but {_KEY} is iou, which does "
                    "not read it: set it to []."
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
