"""RetinaNet with the losses of E-FPN-BS, and label assignment by a similarity."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes, Instances
from fvcore.nn import sigmoid_focal_loss_jit
from torch import Tensor, nn
from torch.nn import functional as F

from efpn_d2.modeling.box_similarity import similarity_settings
from efpn_d2.modeling.checks import differs_in_width
from efpn_d2.modeling.config_checks import check_config
from efpn_d2.modeling.gradient_balance import (
    balance_dense_losses,
    build_gradient_balance,
    dense_positives,
)
from efpn_d2.modeling.label_assignment import SimilarityAssigner
from efpn_d2.modeling.mask_supervision import (
    MaskSupervision,
    build_mask_supervision,
    learns_masks,
)
from efpn_d2.modeling.small_dense_heads import EFPNRetinaNetHead


@META_ARCH_REGISTRY.register()
class EFPNRetinaNet(RetinaNet):
    """Detectron2's RetinaNet with DCLoss, and the loss and the log of FBSM's masks.

    DCLoss is enabled by ``MODEL.EFPN_BS.DCLOSS_ENABLED``, the masks by ``FBSM_ENABLED``; without
    them it is bitwise equal to RetinaNet. [reconstruction from the abstract of E-FPN-BS]
    ``MODEL.EFPN.SIMILARITY`` selects the similarity by which anchors are assigned to objects.
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
            assigner: assigns anchors to objects; None: by IoU, as in the base class.
            kwargs: see Detectron2's ``RetinaNet``.
        """
        super().__init__(**kwargs)
        self.gradient_balance = gradient_balance
        self.mask_supervision = mask_supervision
        self.assigner = assigner

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Raises:
            ValueError: see :func:`check_config`, :func:`build_gradient_balance`,
                :func:`build_mask_supervision` and :func:`similarity_settings`.
            KeyError: if ``add_efpn_config`` was not called.
        """
        check_config(cfg)
        ret = super().from_config(cfg)
        shapes = ret["backbone"].output_shape()
        levels = [shapes[name] for name in ret["head_in_features"]]
        if differs_in_width(levels):
            ret["head"] = EFPNRetinaNetHead(cfg, levels)
        similarity = similarity_settings(cfg, "retinanet")
        return {
            **ret,
            "gradient_balance": build_gradient_balance(cfg, "retinanet"),
            "mask_supervision": build_mask_supervision(cfg, ret["backbone"]),
            "assigner": SimilarityAssigner(similarity) if similarity else None,
        }

    def forward(self, batched_inputs: list[dict[str, Tensor]]) -> Any:
        """Run RetinaNet, in training with the losses of FBSM's masks."""
        if torch.jit.is_scripting():  # scripts do not support super()
            images = self.preprocess_image(batched_inputs)
            outputs = self.backbone(images.tensor)
            features = [outputs[name] for name in self.head_in_features]
            return self.forward_inference(images, features, self.head(features))
        elif self.training:  # noqa: RET505  scripts compile all code after an if without else
            return self._losses(batched_inputs)
        else:
            return super().forward(batched_inputs)

    @torch.jit.unused
    def _losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        if self.mask_supervision is None or not learns_masks(self.backbone):
            return super().forward(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        instances = [x["instances"].to(self.device) for x in batched_inputs]
        outputs, mask_logits = self.backbone.forward_with_masks(images.tensor)
        features = [outputs[name] for name in self.head_in_features]
        losses = self.forward_training(images, features, self.head(features), instances)
        return {**losses, **self.mask_supervision(mask_logits, instances)}

    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Label anchors as the base class does, or by a similarity."""
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
        """Compute the losses of the base class, balanced if DCLoss is enabled."""
        losses = super().losses(anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes)
        if self.gradient_balance is None:
            return losses
        labels = torch.stack(gt_labels)
        positive = (labels >= 0) & (labels != self.num_classes)
        found = dense_positives(positive, anchors, pred_logits, pred_anchor_deltas, gt_boxes)
        one_hot = F.one_hot(labels[positive], self.num_classes).float()

        def cls_loss(logits: Tensor, rows: Tensor) -> Tensor:
            """Sum over the anchors ``rows``, which are all assigned to objects."""
            alpha, gamma = self.focal_loss_alpha, self.focal_loss_gamma
            return sigmoid_focal_loss_jit(logits, one_hot[rows], alpha, gamma, "sum")

        names = ("loss_cls", "loss_box_reg")
        return balance_dense_losses(self, names, losses, cls_loss, found, self.loss_normalizer, {})
