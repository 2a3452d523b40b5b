"""RetinaNet with the losses of E-FPN-BS, and label assignment by a similarity."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes, ImageList, Instances
from fvcore.nn import sigmoid_focal_loss_jit
from torch import Tensor, nn
from torch.nn import functional as F

from efpn_d2.modeling.backbone.fbsm import MASK_LOGITS
from efpn_d2.modeling.box_similarity import similarity_settings
from efpn_d2.modeling.checks import differs_in_width
from efpn_d2.modeling.gradient_balance import (
    balance_dense_losses,
    build_gradient_balance,
    dense_positives,
)
from efpn_d2.modeling.label_assignment import SimilarityAssigner
from efpn_d2.modeling.mask_supervision import MaskSupervision, build_mask_supervision
from efpn_d2.modeling.small_dense_heads import EFPNRetinaNetHead


@META_ARCH_REGISTRY.register()
class EFPNRetinaNet(RetinaNet):
    """Detectron2's RetinaNet, bitwise; with ``MODEL.EFPN_BS.DCLOSS_ENABLED`` it has DCLoss, and
    with ``FBSM_ENABLED`` the loss and the log of FBSM's masks.

    [reconstruction from the abstract of E-FPN-BS] ``MODEL.EFPN.SIMILARITY`` says by what anchors
    are assigned to objects in training.
    """

    @configurable
    def __init__(
        self,
        *,
        gradient_balance: nn.ModuleDict | None = None,
        mask_supervision: MaskSupervision | None = None,
        assigner: SimilarityAssigner | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            gradient_balance: see :func:`build_gradient_balance`.
            mask_supervision: see :func:`build_mask_supervision`.
            assigner: of anchors to objects; None: by IoU, as in the base class.
            kwargs: those of Detectron2's ``RetinaNet``.
        """
        super().__init__(**kwargs)
        self.gradient_balance = gradient_balance
        self.mask_supervision = mask_supervision
        self.assigner = assigner
        if mask_supervision is not None:
            # The base class takes from the backbone's outputs only what its head reads.
            self.backbone.register_forward_hook(_keep_masks)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of the constructor.

        Raises: as :func:`build_gradient_balance` and :func:`similarity_settings`.
        """
        ret = super().from_config(cfg)
        shapes = ret["backbone"].output_shape()
        levels = [shapes[name] for name in ret["head_in_features"]]
        if differs_in_width(levels):
            ret["head"] = EFPNRetinaNetHead(cfg, levels)
        similarity = similarity_settings(cfg, "retinanet")
        return {
            **ret,
            "gradient_balance": build_gradient_balance(cfg, "retinanet"),
            "mask_supervision": build_mask_supervision(cfg, shapes),
            "assigner": SimilarityAssigner(similarity) if similarity else None,
        }

    def forward_training(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: list[list[Tensor]],
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """As in the base class, with the losses of FBSM's masks."""
        losses = super().forward_training(images, features, predictions, gt_instances)
        if self.mask_supervision is not None:
            masks = self.backbone.__dict__.pop("masks", {})
            losses.update(self.mask_supervision(masks, gt_instances))
        return losses

    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As in the base class, or by a similarity."""
        if self.assigner is None:
            return super().label_anchors(anchors, gt_instances)
        of_all_levels = Boxes.cat(anchors)
        found = [
            self.assigner.label_for_retinanet(of_all_levels, image, self.num_classes)
            for image in gt_instances
        ]
        return [labels for labels, _ in found], [boxes for _, boxes in found]

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
        if self.gradient_balance is None:
            return losses
        labels = torch.stack(gt_labels)
        positive = (labels >= 0) & (labels != self.num_classes)
        found = dense_positives(positive, anchors, pred_logits, pred_anchor_deltas, gt_boxes)
        one_hot = F.one_hot(labels[positive], self.num_classes).float()

        def cls_loss(logits: Tensor, rows: Tensor) -> Tensor:
            """Summed over the anchors ``rows``, all of them objects."""
            alpha, gamma = self.focal_loss_alpha, self.focal_loss_gamma
            return sigmoid_focal_loss_jit(logits, one_hot[rows], alpha, gamma, "sum")

        names = ("loss_cls", "loss_box_reg")
        return balance_dense_losses(self, names, losses, cls_loss, found, self.loss_normalizer, {})


class _Masks(dict[str, Tensor]):
    """FBSM's masks of a batch, which no copy of a network has: tensors of a graph have none."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Masks, ()


def _keep_masks(backbone: Backbone, inputs: tuple[Tensor, ...], outputs: dict[str, Tensor]) -> None:
    """Forward hook: let the backbone hold FBSM's masks until their loss is computed."""
    if backbone.training:
        masks = {k: x for k, x in outputs.items() if k.endswith(MASK_LOGITS)}
        backbone.masks = _Masks(masks)
