"""Log of the contrast of FBSM's masks in training, and an optional loss on them.

[reconstruction from the abstract of E-FPN-BS, which does not say whether the masks are supervised]
"""

from collections.abc import Mapping
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.modeling import Backbone
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from efpn_d2.config import require_node
from efpn_d2.losses.foreground_mask import foreground_contrast, foreground_mask_losses
from efpn_d2.modeling.backbone import find_fbsm


@dataclass(frozen=True)
class MaskSupervision:
    """Log the contrast of the masks of a pyramid, and compute their loss.

    Attributes:
        strides: strides of the pyramid's levels.
        weight: weight of the loss; 0: no loss.
    """

    strides: Mapping[str, int]
    weight: float

    def __call__(
        self, logits: Mapping[str, Tensor], instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Log ``fbsm/contrast_<level>`` of the masks, and compute their loss.

        Args:
            logits: for each gated level, the mask before the sigmoid, (N, 1, H_l, W_l).
            instances: ground truth of the N images, with ``gt_boxes``.

        Returns:
            ``loss_fbsm_bce`` and ``loss_fbsm_dice``; empty if the weight is 0.
        """
        boxes = [x.gt_boxes for x in instances]
        storage = get_event_storage()
        for name, contrast in foreground_contrast(logits, boxes, self.strides).items():
            storage.put_scalar(f"fbsm/contrast_{name}", contrast)
        if not self.weight:
            return {}
        losses = foreground_mask_losses(logits, boxes, self.strides)
        return {f"loss_fbsm_{term}": self.weight * value for term, value in losses.items()}


def learns_masks(backbone: nn.Module) -> bool:
    """Check whether a pyramid has FBSM in training mode; a frozen FBSM is not."""
    fbsm = find_fbsm(backbone)
    return fbsm is not None and fbsm.training


def build_mask_supervision(cfg: CfgNode, backbone: Backbone) -> MaskSupervision | None:
    """Build the supervision of FBSM's masks; None if FBSM is disabled.

    Args:
        cfg: a config.
        backbone: the pyramid.

    Raises:
        ValueError: if the config enables FBSM, but the pyramid has none.
        KeyError: if ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN_BS")
    if not node.FBSM_ENABLED:
        return None
    if find_fbsm(backbone) is None:
        raise ValueError(
            f"MODEL.EFPN_BS.FBSM_ENABLED is True, but MODEL.BACKBONE.NAME is "
            f"{cfg.MODEL.BACKBONE.NAME}, which builds no FBSM: use a builder that calls build_efpn "
            "or build_enhanced_fpn, or set MODEL.EFPN_BS.FBSM_ENABLED False."
        )
    strides = {name: shape.stride for name, shape in backbone.output_shape().items()}
    return MaskSupervision(strides, node.FBSM_MASK_LOSS_WEIGHT)
