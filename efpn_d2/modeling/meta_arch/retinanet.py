"""RetinaNet whose losses can be balanced over object sizes (DCLoss)."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes
from fvcore.nn import sigmoid_focal_loss_jit
from torch import Tensor, nn
from torch.nn import functional as F

from efpn_d2.modeling.gradient_balance import (
    add_corrections,
    box_loss,
    build_gradient_balance,
    dense_positives,
    object_sizes,
)

__all__ = ["EFPNRetinaNet"]


@META_ARCH_REGISTRY.register()
class EFPNRetinaNet(RetinaNet):
    """Detectron2's RetinaNet, bitwise; with ``MODEL.EFPN_BS.DCLOSS_ENABLED`` it has DCLoss.

    [reconstruction from the abstract of E-FPN-BS]
    """

    @configurable
    def __init__(self, *, gradient_balance: nn.ModuleDict | None = None, **kwargs: Any) -> None:
        """
        Args:
            gradient_balance: see :func:`build_gradient_balance`.
            kwargs: those of Detectron2's ``RetinaNet``.
        """
        super().__init__(**kwargs)
        self.gradient_balance = gradient_balance

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of the constructor. Raises: as :func:`build_gradient_balance`."""
        return {
            **super().from_config(cfg),
            "gradient_balance": build_gradient_balance(cfg, "retinanet"),
        }

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """As in the base class, balanced."""
        losses = super().losses(anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes)
        balance = self.gradient_balance
        if balance is None:
            return losses
        labels = torch.stack(gt_labels)
        positive = (labels >= 0) & (labels != self.num_classes)
        found = dense_positives(positive, anchors, pred_logits, pred_anchor_deltas, gt_boxes)
        one_hot = F.one_hot(labels[positive], self.num_classes).float()

        def cls_loss(logits: Tensor, rows: Tensor) -> Tensor:
            """Summed over the anchors ``rows``, all of them objects."""
            alpha, gamma = self.focal_loss_alpha, self.focal_loss_gamma
            return sigmoid_focal_loss_jit(logits, one_hot[rows], alpha, gamma, "sum")

        sizes = object_sizes(found.gt_boxes)
        regression = box_loss(
            self.box2box_transform,
            found.anchors,
            found.gt_boxes,
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        corrections = {
            "loss_cls": balance["cls"](cls_loss, found.logits, sizes),
            "loss_box_reg": balance["box"](regression, found.deltas, sizes),
        }
        return add_corrections(losses, corrections, self.loss_normalizer, {})
