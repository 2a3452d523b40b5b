"""Box predictor with losses balanced over object sizes (DCLoss)."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import cat, cross_entropy
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn

from efpn_d2.modeling.gradient_balance import (
    add_corrections,
    build_gradient_balance,
    object_sizes,
)


class BalancedOutputLayers(FastRCNNOutputLayers):
    """``FastRCNNOutputLayers`` with DCLoss [reconstruction from the abstract of E-FPN-BS].

    If stock and small heads are trained together, their predictions are passed in one call, and a
    single state balances the sizes over both.
    """

    @configurable
    def __init__(self, *, gradient_balance: nn.ModuleDict, **kwargs: Any) -> None:
        """
        Args:
            gradient_balance: see :func:`build_gradient_balance`.
            kwargs: see ``FastRCNNOutputLayers``.
        """
        super().__init__(**kwargs)
        self.gradient_balance = gradient_balance

    def losses(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute the balanced losses of the base class."""
        losses = super().losses(predictions, proposals)
        scores, deltas = predictions
        classes, boxes, gt_boxes = _labels(proposals, scores)
        objects = ((classes >= 0) & (classes < self.num_classes)).nonzero()[:, 0]
        normalizer = max(len(classes), 1)
        classes, boxes, gt_boxes = (x[objects] for x in (classes, boxes, gt_boxes))

        def cls_loss(scores: Tensor, rows: Tensor) -> Tensor:
            """Sum over the boxes ``rows``, which are all assigned to objects."""
            if self.use_sigmoid_ce:
                return self.sigmoid_cross_entropy_loss(scores, classes[rows]) * len(rows)
            return cross_entropy(scores, classes[rows], reduction="sum")

        def box_loss(deltas: Tensor, rows: Tensor) -> Tensor:
            """Sum over the boxes ``rows``, which are all assigned to objects."""
            mean = self.box_reg_loss(boxes[rows], gt_boxes[rows], deltas, classes[rows])
            return mean * len(rows)

        sizes = object_sizes(gt_boxes)
        balance = self.gradient_balance
        corrections = {
            "loss_cls": balance["cls"](cls_loss, scores[objects], sizes),
            "loss_box_reg": balance["box"](box_loss, deltas[objects], sizes),
        }
        return add_corrections(losses, corrections, normalizer, self.loss_weight)


def _labels(proposals: list[Instances], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return classes (R,), boxes (R, 4) and objects (R, 4) of all proposals.

    For an image without ground truth, its boxes replace the objects; they are not read.
    """
    if not proposals:
        return like.new_zeros(0).long(), like.new_zeros(0, 4), like.new_zeros(0, 4)
    objects = [(x.gt_boxes if x.has("gt_boxes") else x.proposal_boxes).tensor for x in proposals]
    boxes = [x.proposal_boxes.tensor for x in proposals]
    return cat([x.gt_classes for x in proposals]), cat(boxes), cat(objects)


def _balance(
    predictor: FastRCNNOutputLayers, cfg: CfgNode, gradient_balance: nn.ModuleDict
) -> BalancedOutputLayers:
    """Build the same predictor with DCLoss; Detectron2's builders fix its class."""
    if predictor.use_fed_loss:
        raise ValueError(
            "MODEL.EFPN_BS.DCLOSS_ENABLED does not support the gradients of "
            "MODEL.ROI_BOX_HEAD.USE_FED_LOSS, but both are True: set one of them False."
        )
    with torch.random.fork_rng(devices=[]):  # the weights are those of the predictor
        balanced = BalancedOutputLayers(
            cfg,
            predictor.cls_score.in_features,
            box2box_transform=predictor.box2box_transform,
            gradient_balance=gradient_balance,
        )
    balanced.load_state_dict({**balanced.state_dict(), **predictor.state_dict()})
    return balanced


def balance_predictors(parts: dict[str, Any], cfg: CfgNode) -> dict[str, Any]:
    """Add DCLoss to the result of Detectron2's ``_init_box_head`` if ``cfg`` enables it.

    Each stage of a cascade has its own state.

    Args:
        parts: the arguments of ROI heads.
        cfg: a config.

    Raises:
        ValueError: if a predictor has a federated loss, which samples classes in each call; see
            also :func:`build_gradient_balance`.
        KeyError: if ``add_efpn_config`` was not called.
    """

    def balanced(predictor: FastRCNNOutputLayers) -> FastRCNNOutputLayers:
        """Add DCLoss to a predictor if it is enabled."""
        gradient_balance = build_gradient_balance(cfg, "box_head")
        if gradient_balance is None:
            return predictor
        return _balance(predictor, cfg, gradient_balance)

    parts = dict(parts)
    if "box_predictor" in parts:
        parts["box_predictor"] = balanced(parts["box_predictor"])
    if "box_predictors" in parts:
        parts["box_predictors"] = [balanced(x) for x in parts["box_predictors"]]
    return parts
