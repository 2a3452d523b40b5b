"""What becomes of FBSM's masks in training: the log of their contrast, and an optional loss.

Reconstruction from the abstract of E-FPN-BS, which does not say whether the masks are supervised.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor

from efpn_d2.config import require_node
from efpn_d2.losses.foreground_mask import foreground_contrast, foreground_mask_losses
from efpn_d2.modeling.backbone.fbsm import MASK_LOGITS
from efpn_d2.modeling.checks import check_extended


@dataclass(frozen=True)
class MaskSupervision:
    """Logs the contrast of the masks of one pyramid, and computes their loss.

    ``strides`` are those of the pyramid's levels, ``weight`` that of the loss; 0: there is none.
    """

    strides: Mapping[str, int]
    weight: float

    def __call__(
        self, features: Mapping[str, Tensor], instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Log ``fbsm/contrast_<level>`` of the masks among ``features``, and compute their loss.

        Args:
            features: outputs of the pyramid, or the masks among them alone.
            instances: ground truth of the N images, with ``gt_boxes``.

        Returns:
            ``loss_fbsm_bce`` and ``loss_fbsm_dice``; nothing without masks, as of a frozen pyramid,
            or without weight.
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
        for name, contrast in foreground_contrast(logits, boxes, self.strides).items():
            storage.put_scalar(f"fbsm/contrast_{name}", contrast)
        if not self.weight:
            return {}
        losses = foreground_mask_losses(logits, boxes, self.strides)
        return {f"loss_fbsm_{term}": self.weight * value for term, value in losses.items()}


def build_mask_supervision(cfg: CfgNode, levels: Mapping[str, ShapeSpec]) -> MaskSupervision | None:
    """What the config says of FBSM's masks; None: there are none.

    Args:
        cfg: a config.
        levels: the pyramid's ``output_shape()``.

    Raises:
        KeyError: ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN_BS")
    if not node.FBSM_ENABLED:
        return None
    strides = {name: shape.stride for name, shape in levels.items()}
    return MaskSupervision(strides, node.FBSM_MASK_LOSS_WEIGHT)


def check_mask_supervision(cfg: CfgNode) -> None:
    """Check that the loss of FBSM's masks, where it is switched on, is not lost.

    Raises:
        ValueError: there is no mask, what would compute the loss is Detectron2's own, which does
            not know it, or there is no RPN; or the weight is negative.
    """
    key = "MODEL.EFPN_BS.FBSM_MASK_LOSS_WEIGHT"
    if "EFPN_BS" not in cfg.MODEL or not cfg.MODEL.EFPN_BS.FBSM_MASK_LOSS_WEIGHT:
        return
    weight = cfg.MODEL.EFPN_BS.FBSM_MASK_LOSS_WEIGHT
    if not weight > 0:
        raise ValueError(f"{key} is {weight}: use 0.0 for no loss, or a positive weight.")
    if not cfg.MODEL.EFPN_BS.FBSM_ENABLED:
        raise ValueError(
            f"{key} is {weight}, but MODEL.EFPN_BS.FBSM_ENABLED "
            "is False, so there is no mask: switch it on, or set the weight to 0.0."
        )
    retinanet = "RetinaNet" in cfg.MODEL.META_ARCHITECTURE
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "PrecomputedProposals" and not retinanet:
        raise ValueError(
            f"{key} is {weight}, but MODEL.PROPOSAL_GENERATOR.NAME is PrecomputedProposals, and it "
            "is the RPN that computes this loss: set it to EFPNRPN, or the weight to 0.0."
        )
    check_extended(cfg, key, ["PROPOSAL_GENERATOR"])
