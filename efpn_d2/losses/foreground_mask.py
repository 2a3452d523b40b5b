"""Supervision of the masks of the foreground-background separation module (E-FPN-BS).

This option is ours: the abstract does not say whether the masks are supervised.
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
    """Compare masks with the cells covered by boxes: binary cross-entropy and Dice losses.

    Both are computed in fp32 and averaged over the levels. Dice is 1 - (2 |M B| + 1) / (|M| + |B| +
    1), with sums over the cells of an image, averaged over images.

    Args:
        logits: for each level, mask logits (N, 1, H_l, W_l).
        boxes: ground truth of the N images, in pixels of the network's input.
        strides: for each level, pixels per cell.

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
    """Compute each level's mean mask in cells covered by boxes minus that in all other cells.

    Args:
        logits: see :func:`foreground_mask_losses`.
        boxes: see :func:`foreground_mask_losses`.
        strides: see :func:`foreground_mask_losses`.

    Returns:
        Values from -1 to 1; levels with all cells covered, or none, are skipped.
    """
    contrasts = {}
    for name, x in logits.items():
        mask = x[:, 0].float().sigmoid()
        covered = covered_cells(boxes, mask.shape[-2:], strides[name]).to(mask.device)
        if covered.any() and not covered.all():
            contrasts[name] = float(mask[covered].mean() - mask[~covered].mean())
    return contrasts
