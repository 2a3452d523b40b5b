"""Supervision of the masks of the foreground-background separation module (E-FPN-BS).

An option of ours: the abstract does not say whether the masks are supervised.
"""

from collections.abc import Mapping

import torch
from detectron2.structures import Boxes
from torch import Tensor
from torch.nn import functional as F

from efpn_d2.losses.foreground_background_balanced import covered_cells


def foreground_mask_losses(
    logits: Mapping[str, Tensor], boxes: list[Boxes], strides: Mapping[str, int]
) -> dict[str, Tensor]:
    """Distance of masks to the cells that boxes cover: binary cross-entropy and Dice.

    Computed in fp32, each the mean over the levels. Dice is 1 - (2 |M B| + 1) / (|M| + |B| + 1),
    the mean over the images, with the sums over an image's cells.

    Args:
        logits: of each level, masks before the sigmoid, (N, 1, H_l, W_l).
        boxes: ground truth of the N images, in pixels of the network's input.
        strides: of each level, pixels per cell.

    Returns:
        The scalars ``bce`` and ``dice``; finite also without any box.
    """
    terms = []
    for name, x in logits.items():
        x = x[:, 0].float()
        target = covered_cells(boxes, x.shape[-2:], strides[name]).to(x)
        bce = F.binary_cross_entropy_with_logits(x, target)
        mask = x.sigmoid()
        both, sizes = (y.sum(dim=(1, 2)) for y in (mask * target, mask + target))
        terms.append(torch.stack([bce, (1 - (2 * both + 1) / (sizes + 1)).mean()]))
    bce, dice = torch.stack(terms).mean(dim=0)
    return {"bce": bce, "dice": dice}


@torch.no_grad()
def foreground_contrast(
    logits: Mapping[str, Tensor], boxes: list[Boxes], strides: Mapping[str, int]
) -> dict[str, float]:
    """Of each level: the mean mask in the cells that boxes cover minus that in all others.

    From -1 to 1; levels whose cells are all covered, or none, are left out. Arguments as of
    :func:`foreground_mask_losses`.
    """
    contrasts = {}
    for name, x in logits.items():
        mask = x[:, 0].float().sigmoid()
        covered = covered_cells(boxes, mask.shape[-2:], strides[name]).to(mask.device)
        if covered.any() and not covered.all():
            contrasts[name] = float(mask[covered].mean() - mask[~covered].mean())
    return contrasts
