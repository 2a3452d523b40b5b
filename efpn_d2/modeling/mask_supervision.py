"""What becomes of FBSM's masks in training: the log of their contrast, and an optional loss.

Reconstruction from the abstract of E-FPN-BS, which does not say whether the masks are supervised.
"""

from collections.abc import Mapping

from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor

from efpn_d2.losses.foreground_mask import foreground_contrast, foreground_mask_losses

from .backbone.fbsm import MASK_LOGITS

__all__ = ["supervise_masks"]


def supervise_masks(
    features: Mapping[str, Tensor],
    instances: list[Instances],
    strides: Mapping[str, int],
    weight: float,
) -> dict[str, Tensor]:
    """Log ``fbsm/contrast_<level>`` of the masks among ``features``, and compute their loss.

    Args:
        features: a pyramid's outputs.
        instances: ground truth of the N images, with ``gt_boxes``.
        strides: of the pyramid's levels.
        weight: of the loss; 0: there is none.

    Returns:
        ``loss_fbsm_bce`` and ``loss_fbsm_dice``; nothing without masks or weight.
    """
    logits = {
        name.removesuffix(MASK_LOGITS): x
        for name, x in features.items()
        if name.endswith(MASK_LOGITS)
    }
    if not logits:
        return {}
    boxes = [x.gt_boxes for x in instances]
    storage = get_event_storage()
    for name, contrast in foreground_contrast(logits, boxes, strides).items():
        storage.put_scalar(f"fbsm/contrast_{name}", contrast)
    if not weight:
        return {}
    losses = foreground_mask_losses(logits, boxes, strides)
    return {f"loss_fbsm_{term}": weight * value for term, value in losses.items()}
