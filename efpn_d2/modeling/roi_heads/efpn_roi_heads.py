"""ROI heads of EFPN: small boxes are read from P'2 by heads of their own."""

from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.modeling.roi_heads.cascade_rcnn import _ScaleGradient
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from efpn_d2.modeling.roi_heads.routing import join_routes
from efpn_d2.modeling.roi_heads.small_head import (
    Features,
    Predictions,
    SmallHeadMixin,
    append_small_copies,
    boxes_only,
    split_by_route,
)


@ROI_HEADS_REGISTRY.register()
class EFPNROIHeads(SmallHeadMixin, StandardROIHeads):
    """``StandardROIHeads`` with a small head on P'2 [paper IV-A3].

    With ``routing="none"`` it is ``StandardROIHeads``, bitwise.
    """

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        """Args: those of :class:`SmallHeadMixin` and of ``StandardROIHeads``."""
        super().__init__(**kwargs)

    def _forward_box(
        self, features: Features, proposals: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        if self.routing == "none":
            result = super()._forward_box(features, proposals)
            return self._tie_unread_map(result, features)

        boxes = [x.proposal_boxes for x in proposals]
        routes = self._route(boxes)
        scored = proposals
        if self.training:
            self._log_route(routes)
        if self.routing == "duplicate":
            scored, routes = append_small_copies(proposals, routes)
            boxes = [x.proposal_boxes for x in scored]
        predictions = self._predict(features, boxes, routes)
        if not self.training:
            return self.box_predictor.inference(predictions, scored)[0]
        losses = self.box_predictor.losses(predictions, scored)
        if self.train_on_pred_boxes:
            self._use_predicted_boxes(predictions, scored, proposals)
        return losses

    def _predict(self, features: Features, boxes: list[Boxes], routes: list[Tensor]) -> Predictions:
        """Class logits (R, K+1) and box deltas (R, 4K or 4) of all boxes, in their order."""
        small, rest = split_by_route(boxes, routes)
        pooled = self.box_pooler([features[f] for f in self.box_in_features], rest)
        rest_predictions = self.box_predictor(self.box_head(pooled))
        pooled = self._pool_small_boxes(features, small)
        small_predictions = self.small_box_predictor(self.small_box_head(pooled))
        return join_predictions(routes, small_predictions, rest_predictions)

    @torch.no_grad()
    def _use_predicted_boxes(
        self, predictions: Predictions, scored: list[Instances], proposals: list[Instances]
    ) -> None:
        """Replace the proposal boxes by the predicted ones, for the heads that train on them."""
        boxes = self.box_predictor.predict_boxes_for_gt_classes(predictions, scored)
        for proposals_per_image, predicted in zip(proposals, boxes, strict=True):
            # The copies that duplicate routing appends come last.
            proposals_per_image.proposal_boxes = Boxes(predicted[: len(proposals_per_image)])


@ROI_HEADS_REGISTRY.register()
class EFPNCascadeROIHeads(SmallHeadMixin, CascadeROIHeads):
    """``CascadeROIHeads`` with a small head per stage on P'2 [ours; the paper has no cascade].

    Each stage routes the boxes it receives, as FPN chooses levels anew in each stage.
    """

    @configurable
    def __init__(
        self,
        *,
        routing: str = "auto",
        small_box_heads: list[nn.Module] | None = None,
        small_box_predictors: list[nn.Module] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            routing: ``reassign``, ``none`` or ``auto``, see :class:`SmallHeadMixin`.
            small_box_heads, small_box_predictors: one per stage, like ``box_heads`` and
                ``box_predictors``; None without routing.
            kwargs: those of :class:`SmallHeadMixin` and of ``CascadeROIHeads``.

        Raises:
            ValueError: ``duplicate`` routing, which a cascade has no stage-wise meaning for.
        """
        if routing == "duplicate":
            raise ValueError(
                "EFPNCascadeROIHeads cannot duplicate boxes, because each stage routes anew: set "
                "MODEL.EFPN.ROUTING to reassign or none."
            )
        super().__init__(
            routing=routing,
            small_box_head=nn.ModuleList(small_box_heads) if small_box_heads else None,
            small_box_predictor=(
                nn.ModuleList(small_box_predictors) if small_box_predictors else None
            ),
            **kwargs,
        )
        if self.routing != "none":
            # ``CascadeROIHeads`` hands the stages just the maps listed here.
            self.box_in_features: list[str] = [*self.small_in_features, *self.box_in_features]

    def _forward_box(
        self,
        features: Features,
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> dict[str, Tensor] | list[Instances]:
        result = super()._forward_box(features, proposals, targets)
        return self._tie_unread_map(result, features) if self.routing == "none" else result

    def _run_stage(
        self, features: list[Tensor], proposals: list[Instances], stage: int
    ) -> Predictions:
        if self.routing == "none":
            return super()._run_stage(features, proposals, stage)
        small_features = dict(zip(self.box_in_features, features, strict=True))
        stock_features = features[len(self.small_in_features) :]
        routes = self._route([x.proposal_boxes for x in proposals])
        if self.training and stage == 0:
            self._log_route(routes)
        # Boxes are all that the stages read: splitting whole instances would copy their masks.
        proposals = [boxes_only(x) for x in proposals]
        small, rest = split_by_route(proposals, routes)
        rest_predictions = super()._run_stage(stock_features, rest, stage)
        pooled = self._pool_small_boxes(small_features, [x.proposal_boxes for x in small])
        if self.training:
            # As in the class this extends: the mean over stages for the features' gradients.
            pooled = _ScaleGradient.apply(pooled, 1.0 / self.num_cascade_stages)
        small_predictions = self.small_box_predictor[stage](self.small_box_head[stage](pooled))
        return join_predictions(routes, small_predictions, rest_predictions)


def join_predictions(routes: list[Tensor], small: Predictions, rest: Predictions) -> Predictions:
    """Class logits (R, K+1) and box deltas (R, 4K or 4) of both heads, in box order."""
    route = cat(routes)
    scores, deltas = (join_routes(route, *pair) for pair in zip(small, rest, strict=True))
    return scores, deltas
