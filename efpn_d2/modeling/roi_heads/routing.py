"""Routing of boxes between the P'2 head and the stock head: pure, scriptable functions.

A *route* is a bool tensor over the R boxes of a batch, all images one after the other: True where
the small head, which reads P'2, has the box.
"""

import torch
from torch import Tensor


def is_small_box(boxes: Tensor, small_box_size: float) -> Tensor:
    """Whether a box belongs to P'2: ``sqrt(w * h) < small_box_size`` [paper Eq. 2, IV-A3].

    With 56 pixels this is Eq. 2 with l0 = 4 and minimum level 1.

    Args:
        boxes: (R, 4), x1, y1, x2, y2 in pixels of the network's input.
        small_box_size: in the same pixels.

    Returns:
        Bool tensor (R,).
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return torch.sqrt(sides[:, 0] * sides[:, 1]) < small_box_size


def join_routes(route: Tensor, small: Tensor, rest: Tensor) -> Tensor:
    """Put the rows of the two heads back into the order of the boxes.

    Args:
        route: (R,) bool.
        small: (number of True, ...), rows of the small head in box order.
        rest: (number of False, ...), rows of the stock head in box order.

    Returns:
        (R, ...): row i is the next one of ``small`` where ``route[i]``, else of ``rest``.
    """
    order = torch.cat([route.nonzero()[:, 0], (~route).nonzero()[:, 0]])
    return torch.cat([small, rest])[torch.argsort(order)]
