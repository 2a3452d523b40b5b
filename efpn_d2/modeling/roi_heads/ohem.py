"""Training of the heads on P'2 only, with online hard example mining [paper IV-A3]."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.roi_heads import select_foreground_proposals
from detectron2.structures import Instances
from fvcore.nn import smooth_l1_loss
from torch import Tensor
from torch.nn import functional as F

from efpn_d2.modeling.roi_heads.efpn_roi_heads import EFPNROIHeads
from efpn_d2.modeling.roi_heads.routes import split_instances
from efpn_d2.modeling.roi_heads.small_head import Features, Predictions


def select_hard_boxes(
    cls_loss: Tensor, box_loss: Tensor, foreground: Tensor, count: int, positive_fraction: float
) -> Tensor:
    """Select the boxes with the largest loss [paper IV-A3 cites OHEM; the counts are ours].

    Objects are ranked by classification plus box loss, background by classification loss. Objects
    get at most their fraction of ``count``, background the rest.

    Args:
        cls_loss: (R,) per box.
        box_loss: (R,) per box; read for objects only.
        foreground: (R,) bool, boxes that are assigned to an object.
        count: number of boxes to select.
        positive_fraction: maximum fraction of objects in ``count``.

    Returns:
        Bool tensor (R,): the selected boxes, ``count`` or fewer.
    """
    objects, background = foreground.nonzero()[:, 0], (~foreground).nonzero()[:, 0]
    num_objects = min(len(objects), int(count * positive_fraction))
    num_background = min(len(background), count - num_objects)
    hardest_objects = (cls_loss + box_loss)[objects].topk(num_objects).indices
    hardest_background = cls_loss[background].topk(num_background).indices
    selected = torch.zeros_like(foreground)
    selected[objects[hardest_objects]] = True
    selected[background[hardest_background]] = True
    return selected


@ROI_HEADS_REGISTRY.register()
class OHEMSmallROIHeads(EFPNROIHeads):
    """:class:`EFPNROIHeads` that trains the small heads only.

    Training uses the hardest of the small boxes; the stock heads do not run. Inference and state
    dict are those of :class:`EFPNROIHeads`.
    """

    @configurable
    def __init__(self, *, ohem_batch: int, ohem_positive_fraction: float, **kwargs: Any) -> None:
        """
        Args:
            ohem_batch: number of boxes per batch (of all images of this process).
            ohem_positive_fraction: maximum fraction of objects among them.
            kwargs: see :class:`EFPNROIHeads`.

        Raises:
            ValueError: if there is no small head, or the counts are out of range.
        """
        super().__init__(**kwargs)
        if self.router.mode == "none":
            raise ValueError(
                "OHEMSmallROIHeads trains the heads on P'2, but MODEL.EFPN.ROUTING is none: set "
                "it to auto, reassign or duplicate."
            )
        if ohem_batch < 1 or not 0 <= ohem_positive_fraction <= 1:
            raise ValueError(
                f"DISTILL.OHEM_BATCH {ohem_batch} must be at least 1, and OHEM_POSITIVE_FRACTION "
                f"{ohem_positive_fraction} between 0 and 1."
            )
        self._append_ground_truth: bool = self.proposal_append_gt
        self.proposal_append_gt: bool = False
        self.ohem_batch = ohem_batch
        self.ohem_positive_fraction = ohem_positive_fraction

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Raises:
            ValueError: see :class:`SmallHeadMixin`.
            KeyError: if ``add_efpn_config`` was not called.
        """
        ret = super().from_config(cfg, input_shape)
        ret["ohem_batch"] = cfg.DISTILL.OHEM_BATCH
        ret["ohem_positive_fraction"] = cfg.DISTILL.OHEM_POSITIVE_FRACTION
        return ret

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """Label and sample proposals as Detectron2 does, from small boxes only."""
        if self._append_ground_truth:
            # Added before the selection of small boxes, so that large objects are not sampled.
            proposals = add_ground_truth_to_proposals(targets, proposals)
        return super().label_and_sample_proposals(self._only_small(proposals), targets)

    def _only_small(self, proposals: list[Instances]) -> list[Instances]:
        routes = self._route([x.proposal_boxes for x in proposals])
        return split_instances(proposals, routes)[0]

    def _forward_box(
        self, features: Features, proposals: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        if not self.training:
            return super()._forward_box(features, proposals)
        boxes = [x.proposal_boxes for x in proposals]
        pooled = self._pool_small_boxes(features, boxes)
        predictor = self.small_box_predictor
        predictions = predictor(self.small_box_head(pooled))
        selected = select_hard_boxes(
            *box_losses(predictor, predictions, proposals, self.num_classes),
            self.ohem_batch,
            self.ohem_positive_fraction,
        )
        scores, deltas = (x[selected] for x in predictions)
        parts = selected.split([len(x) for x in proposals])
        hard = [x[part] for x, part in zip(proposals, parts, strict=True)]
        return predictor.losses((scores, deltas), hard)

    def _forward_mask(
        self, features: Features, instances: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        if not self.training or self.small_mask_head is None:
            return {} if self.training else super()._forward_mask(features, instances)
        instances, _ = select_foreground_proposals(instances, self.num_classes)
        boxes = [x.proposal_boxes for x in instances]
        pooled = self._pool_small_masks(features, boxes)
        return self.small_mask_head(pooled, instances)

    def _forward_keypoint(
        self, features: Features, instances: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        return {} if self.training else super()._forward_keypoint(features, instances)


@torch.no_grad()
def box_losses(
    predictor: FastRCNNOutputLayers,
    predictions: Predictions,
    proposals: list[Instances],
    num_classes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the inputs of :func:`select_hard_boxes`, each (R,).

    The box loss is smooth L1 for any loss of the predictor; it is only used for ranking.
    """
    scores, deltas = (x.float() for x in predictions)
    classes = cat([x.gt_classes for x in proposals])
    cls_loss = F.cross_entropy(scores, classes, reduction="none")
    box_loss = torch.zeros_like(cls_loss)
    foreground = (classes >= 0) & (classes < num_classes)
    rows = foreground.nonzero()[:, 0]
    if len(rows):
        boxes, gt_boxes = (
            cat([x.get(name).tensor for x in proposals if x.has("gt_boxes")])
            for name in ("proposal_boxes", "gt_boxes")
        )
        # Images without ground truth have no objects, so their rows can be skipped.
        has_gt = cat([torch.full_like(x.gt_classes, x.has("gt_boxes")) for x in proposals]).bool()
        own = foreground[has_gt]
        targets = predictor.box2box_transform.get_deltas(boxes[own], gt_boxes[own])
        per_class = deltas[rows].view(len(rows), -1, 4)
        columns = classes[rows] if per_class.shape[1] > 1 else torch.zeros_like(rows)
        predicted = per_class[torch.arange(len(rows), device=rows.device), columns]
        loss = smooth_l1_loss(predicted, targets, predictor.smooth_l1_beta, reduction="none")
        box_loss[rows] = loss.sum(dim=1)
    return cls_loss, box_loss, foreground
