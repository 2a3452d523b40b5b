"""Box predictor whose losses are balanced over object sizes (DCLoss)."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import cat, cross_entropy
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn

from efpn_d2.modeling.gradient_balance import add_corrections, build_gradient_balance, object_sizes


class BalancedOutputLayers(FastRCNNOutputLayers):
    """``FastRCNNOutputLayers`` with DCLoss [reconstruction from the abstract of E-FPN-BS].

    Where stock and small head are trained together, their predictions come in one call, and one
    state balances the sizes over both.
    """

    gradient_balance: nn.ModuleDict

    @classmethod
    def from_predictor(
        cls, predictor: FastRCNNOutputLayers, gradient_balance: nn.ModuleDict
    ) -> "BalancedOutputLayers":
        """Rebuild a predictor around its own parameters, which keep names and values.

        Detectron2's builders name the class of the predictor themselves. Building a second one
        would draw other random numbers than a training without DCLoss.

        Raises:
            ValueError: the predictor has a federated loss, which draws classes anew in each call.
        """
        if predictor.use_fed_loss:
            raise ValueError(
                "MODEL.EFPN_BS.DCLOSS_ENABLED is True, and MODEL.ROI_BOX_HEAD.USE_FED_LOSS too, "
                "whose gradients it cannot compare: switch one of them off."
            )
        balanced = cls.__new__(cls)
        balanced.__dict__.update(vars(predictor))
        balanced.gradient_balance = gradient_balance
        return balanced

    def losses(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor]:
        """As in the base class, balanced."""
        losses = super().losses(predictions, proposals)
        scores, deltas = predictions
        classes, boxes, gt_boxes = _labels(proposals, scores)
        objects = ((classes >= 0) & (classes < self.num_classes)).nonzero()[:, 0]
        normalizer = max(len(classes), 1)
        classes, boxes, gt_boxes = (x[objects] for x in (classes, boxes, gt_boxes))

        def cls_loss(scores: Tensor, rows: Tensor) -> Tensor:
            """Summed over the boxes ``rows``, all of them objects."""
            if self.use_sigmoid_ce:
                return self.sigmoid_cross_entropy_loss(scores, classes[rows]) * len(rows)
            return cross_entropy(scores, classes[rows], reduction="sum")

        def box_loss(deltas: Tensor, rows: Tensor) -> Tensor:
            """Summed over the boxes ``rows``, all of them objects."""
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
    """Classes (R,), boxes (R, 4) and objects (R, 4) of all proposals, on the device of ``like``.

    An image without ground truth has no objects; its boxes stand in for them, unread.
    """
    if not proposals:
        return like.new_zeros(0).long(), like.new_zeros(0, 4), like.new_zeros(0, 4)
    objects = [(x.gt_boxes if x.has("gt_boxes") else x.proposal_boxes).tensor for x in proposals]
    boxes = [x.proposal_boxes.tensor for x in proposals]
    return cat([x.gt_classes for x in proposals]), cat(boxes), cat(objects)


def balance_predictors(parts: dict[str, Any], cfg: CfgNode) -> dict[str, Any]:
    """What ``_init_box_head`` of Detectron2 returns, with DCLoss if ``cfg`` switches it on.

    A cascade has a state per stage.

    Raises: as :func:`build_gradient_balance`.
    """

    def balanced(predictor: FastRCNNOutputLayers) -> FastRCNNOutputLayers:
        """The predictor, with DCLoss if it is on."""
        gradient_balance = build_gradient_balance(cfg, "box_head")
        if gradient_balance is None:
            return predictor
        return BalancedOutputLayers.from_predictor(predictor, gradient_balance)

    parts = dict(parts)
    if "box_predictor" in parts:
        parts["box_predictor"] = balanced(parts["box_predictor"])
    if "box_predictors" in parts:
        parts["box_predictors"] = [balanced(x) for x in parts["box_predictors"]]
    return parts
