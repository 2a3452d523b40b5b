"""Split boxes by their route, and join the outputs of the heads; scriptable in part.

A *route* is a bool tensor over the R boxes of an image, or of all images of a batch: True for boxes
of the small head, which reads P'2.
"""

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor


def join_routes(route: Tensor, small: Tensor, rest: Tensor) -> Tensor:
    """Restore the order of the boxes in the outputs of the two heads.

    Args:
        route: (R,) bool.
        small: (number of True, ...), rows of the small head in box order.
        rest: (number of False, ...), rows of the stock head in box order.

    Returns:
        (R, ...): row i is the next one of ``small`` if ``route[i]``, else of ``rest``.
    """
    order = torch.cat([route.nonzero()[:, 0], (~route).nonzero()[:, 0]])
    return torch.cat([small, rest])[torch.argsort(order)]


def small_share(routes: list[Tensor]) -> float:
    """Return the share of boxes of a batch that the small head reads; 0 without boxes."""
    return sum(int(route.sum()) for route in routes) / max(sum(map(len, routes)), 1)


def split_boxes(boxes: list[Boxes], routes: list[Tensor]) -> tuple[list[Boxes], list[Boxes]]:
    """Split the boxes of each image into those of the small head and the others."""
    small = [x[route] for x, route in zip(boxes, routes)]  # noqa: B905  scripted
    rest = [x[~route] for x, route in zip(boxes, routes)]  # noqa: B905
    return small, rest


def split_instances(
    instances: list[Instances], routes: list[Tensor]
) -> tuple[list[Instances], list[Instances]]:
    """Split the instances of each image as :func:`split_boxes` splits their boxes."""
    small = [x[route] for x, route in zip(instances, routes)]  # noqa: B905  scripted
    rest = [x[~route] for x, route in zip(instances, routes)]  # noqa: B905
    return small, rest


def boxes_only(proposals: Instances, fields: tuple[str, ...] = ("proposal_boxes",)) -> Instances:
    """Return the proposals with only those ``fields`` that they have."""
    present = {name: proposals.get(name) for name in fields if proposals.has(name)}
    return Instances(proposals.image_size, **present)


def append_small_copies(
    instances: list[Instances], routes: list[Tensor]
) -> tuple[list[Instances], list[Tensor]]:
    """Append a copy of its small boxes to each image, for ``duplicate`` routing.

    Returns:
        The longer instances, with the fields that box losses read, and their routes, see
        :func:`routes_of_copies`.
    """
    instances = [boxes_only(x, ("proposal_boxes", "gt_boxes", "gt_classes")) for x in instances]
    small, _ = split_instances(instances, routes)
    both = [Instances.cat([x, copy]) for x, copy in zip(instances, small, strict=True)]
    return both, routes_of_copies(routes)


def append_small_boxes(proposals: list[Instances], routes: list[Tensor]) -> list[Instances]:
    """Append copies as :func:`append_small_copies` does, boxes only, for inference and scripts."""
    both: list[Instances] = []
    for x, route in zip(proposals, routes):  # noqa: B905  scripted
        boxes = x.proposal_boxes.tensor
        longer = Instances(x.image_size)
        longer.proposal_boxes = Boxes(torch.cat([boxes, boxes[route]]))
        both.append(longer)
    return both


def routes_of_copies(routes: list[Tensor]) -> list[Tensor]:
    """Return False for the originals, which the stock head reads, then True for the copies."""
    return [torch.cat([torch.zeros_like(route), route[route]]) for route in routes]
