"""The foreground-background-balanced loss of cross-resolution distillation (paper Eq. 6-8)."""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes
from torch import Tensor


def foreground_background_balanced_loss(
    features: Tensor, targets: Tensor, boxes: list[Boxes], stride: int, weight: float = 1.0
) -> dict[str, Tensor]:
    """Distance of a feature map to its target, with the cells of objects counted again.

    ``global`` is L_glob [paper Eq. 6], the mean of |F_t - F| over all elements. ``positive`` is
    lambda * L_pos [paper Eq. 7], where L_pos is the mean of |F_t - F| over the elements of the
    cells that an object covers, of the whole batch. L_fbb [paper Eq. 8] is their sum.

    The paper writes plain sums, the first of which would swamp lambda = 1 on maps of usual size;
    the means are what the authors' code takes. Computed in fp32 whatever the type of the maps.

    Args:
        features: F, (N, C, H, W).
        targets: F_t, (N, C, H, W); no gradient flows to it.
        boxes: ground truth of the N images, in pixels of the network's input.
        stride: pixels per cell of the maps.
        weight: lambda.

    Returns:
        The two scalar terms. Without any box, ``positive`` is exactly 0 and still differentiable.

    Raises:
        ValueError: the maps differ in shape, or there are not as many lists of boxes as images.
    """
    if features.shape != targets.shape:
        raise ValueError(
            f"The feature map has shape {tuple(features.shape)} and its target "
            f"{tuple(targets.shape)}: the target must come from the image at twice the side."
        )
    if len(boxes) != len(features):
        raise ValueError(f"There are boxes for {len(boxes)} images, but {len(features)} maps.")
    distance = (targets.detach().float() - features.float()).abs().mean(dim=1)
    covered = covered_cells(boxes, distance.shape[-2:], stride).to(distance.device)
    on_objects = (distance * covered).sum() / covered.sum().clamp(min=1)
    return {"global": distance.mean(), "positive": weight * on_objects}


def covered_cells(boxes: list[Boxes], size: Sequence[int], stride: int) -> Tensor:
    """The cells that any box covers, each box rounded outward to whole cells and clipped.

    A box whose second corner is not right of and below the first covers nothing.

    Args:
        boxes: of N images, in pixels of the network's input.
        size: (H, W) of the map.
        stride: pixels per cell.

    Returns:
        Bool tensor (N, H, W).
    """
    return torch.stack([_covered_cells(b.tensor, size, stride) for b in boxes])


def _covered_cells(boxes: Tensor, size: Sequence[int], stride: int) -> Tensor:
    height, width = size
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)]
    x1, y1 = (
        (boxes[:, i] / stride).floor().long().clamp(0, s) for i, s in ((0, width), (1, height))
    )
    x2, y2 = (
        (boxes[:, i] / stride).ceil().long().clamp(0, s) for i, s in ((2, width), (3, height))
    )
    # Each box adds 1 from its upper left corner on and takes it back behind its other corners, so
    # the running sum over rows and columns counts the boxes over each cell.
    corners = boxes.new_zeros(height + 1, width + 1)
    for y, x, sign in ((y1, x1, 1), (y1, x2, -1), (y2, x1, -1), (y2, x2, 1)):
        corners.index_put_((y, x), boxes.new_tensor(float(sign)), accumulate=True)
    return corners.cumsum(0).cumsum(1)[:height, :width] > 0.5
