"""ROI heads of EFPN, with separate heads that read small boxes from P'2."""

from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.modeling.roi_heads.cascade_rcnn import _ScaleGradient
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from efpn_d2.modeling.roi_heads.routes import (
    append_small_boxes,
    append_small_copies,
    boxes_only,
    join_routes,
    routes_of_copies,
    split_boxes,
    split_instances,
)
from efpn_d2.modeling.roi_heads.small_head import Features, Predictions, SmallHeadMixin
from efpn_d2.modeling.scripting import renamed


@ROI_HEADS_REGISTRY.register()
class EFPNROIHeads(SmallHeadMixin, StandardROIHeads):
    """``StandardROIHeads`` with a small head on P'2 [paper IV-A3].

    With a router of mode ``none`` it is bitwise equal to ``StandardROIHeads``.
    """

    _stock_forward_box = renamed(StandardROIHeads._forward_box, "_stock_forward_box")

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        """
        Args:
            kwargs: see :class:`SmallHeadMixin` and ``StandardROIHeads``.
        """
        super().__init__(**kwargs)

    def forward(
        self,
        images: ImageList,
        features: Features,
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Run as the base class does; scripts support inference only."""
        if torch.jit.is_scripting():
            detections = self._detect(features, proposals)
            return self.forward_with_given_boxes(features, detections), {}
        return super().forward(images, features, proposals, targets)

    def _forward_box(
        self, features: Features, proposals: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        if not self.training:
            return self._detect(features, proposals)
        if self.router.mode == "none":
            losses = self._stock_forward_box(features, proposals)
            return self._tie_unread_map(losses, features)
        routes = self._route([x.proposal_boxes for x in proposals])
        self._log_route(routes)
        scored = proposals
        if self.router.mode == "duplicate":
            scored, routes = append_small_copies(proposals, routes)
        predictions = self._predict(features, [x.proposal_boxes for x in scored], routes)
        losses = self.box_predictor.losses(predictions, scored)
        if self.train_on_pred_boxes:
            self._use_predicted_boxes(predictions, scored, proposals)
        return losses

    def _detect(self, features: Features, proposals: list[Instances]) -> list[Instances]:
        """Run :meth:`_forward_box` at inference and in scripts."""
        if self.small_box_head is None:
            return self._stock_forward_box(features, proposals)
        routes = self._route([x.proposal_boxes for x in proposals])
        if self.router.mode == "duplicate":
            proposals = append_small_boxes(proposals, routes)
            routes = routes_of_copies(routes)
        predictions = self._predict(features, [x.proposal_boxes for x in proposals], routes)
        return self.box_predictor.inference(predictions, proposals)[0]

    def _predict(self, features: Features, boxes: list[Boxes], routes: list[Tensor]) -> Predictions:
        """Return class logits (R, K+1) and box deltas (R, 4K or 4) of all boxes, in order."""
        small, rest = split_boxes(boxes, routes)
        pooled = self.box_pooler([features[f] for f in self.box_in_features], rest)
        rest_predictions = self.box_predictor(self.box_head(pooled))
        pooled = self._pool_small_boxes(features, small)
        small_predictions = self.small_box_predictor(self.small_box_head(pooled))
        return join_predictions(routes, small_predictions, rest_predictions)

    @torch.no_grad()
    def _use_predicted_boxes(
        self, predictions: Predictions, scored: list[Instances], proposals: list[Instances]
    ) -> None:
        """Replace the proposal boxes by the predicted ones, for heads that train on them."""
        boxes = self.box_predictor.predict_boxes_for_gt_classes(predictions, scored)
        for proposals_per_image, predicted in zip(proposals, boxes, strict=True):
            # The copies that duplicate routing appends come last.
            proposals_per_image.proposal_boxes = Boxes(predicted[: len(proposals_per_image)])


@ROI_HEADS_REGISTRY.register()
class EFPNCascadeROIHeads(SmallHeadMixin, CascadeROIHeads):
    """``CascadeROIHeads`` with a small head per stage on P'2 [ours; the paper has no cascade].

    Each stage routes the boxes it receives, as FPN assigns levels again in each stage.
    """

    @configurable
    def __init__(
        self,
        *,
        small_box_heads: list[nn.Module] | None = None,
        small_box_predictors: list[nn.Module] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            small_box_heads: one per stage, like ``box_heads``; None without routing.
            small_box_predictors: one per stage, like ``box_predictors``; None without routing.
            kwargs: see :class:`SmallHeadMixin` and ``CascadeROIHeads``.

        Raises:
            ValueError: for ``duplicate`` routing, which is not defined for the stages of a cascade.
        """
        super().__init__(
            small_box_head=nn.ModuleList(small_box_heads) if small_box_heads else None,
            small_box_predictor=(
                nn.ModuleList(small_box_predictors) if small_box_predictors else None
            ),
            **kwargs,
        )
        if self.router.mode == "duplicate":
            raise ValueError(
                "EFPNCascadeROIHeads does not support duplicate routing, because each stage routes "
                "its own boxes: set MODEL.EFPN.ROUTING to reassign or none."
            )
        if self.router.mode != "none":
            # ``CascadeROIHeads`` passes only these features to the stages.
            self.box_in_features: list[str] = [*self.small_in_features, *self.box_in_features]

    def _forward_box(
        self,
        features: Features,
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> dict[str, Tensor] | list[Instances]:
        result = super()._forward_box(features, proposals, targets)
        return self._tie_unread_map(result, features) if self.router.mode == "none" else result

    def _run_stage(
        self, features: list[Tensor], proposals: list[Instances], stage: int
    ) -> Predictions:
        if self.router.mode == "none":
            return super()._run_stage(features, proposals, stage)
        small_features = dict(zip(self.box_in_features, features, strict=True))
        stock_features = features[len(self.small_in_features) :]
        routes = self._route([x.proposal_boxes for x in proposals])
        if self.training and stage == 0:
            self._log_route(routes)
        # The stages read boxes only; splitting whole instances would copy their masks.
        proposals = [boxes_only(x) for x in proposals]
        small, rest = split_instances(proposals, routes)
        rest_predictions = super()._run_stage(stock_features, rest, stage)
        pooled = self._pool_small_boxes(small_features, [x.proposal_boxes for x in small])
        if self.training:
            # As in the base class: average the gradients of the features over the stages.
            pooled = _ScaleGradient.apply(pooled, 1.0 / self.num_cascade_stages)
        small_predictions = self.small_box_predictor[stage](self.small_box_head[stage](pooled))
        return join_predictions(routes, small_predictions, rest_predictions)


def join_predictions(routes: list[Tensor], small: Predictions, rest: Predictions) -> Predictions:
    """Join class logits (R, K+1) and box deltas (R, 4K or 4) of both heads, in box order."""
    route = cat(routes)
    return join_routes(route, small[0], rest[0]), join_routes(route, small[1], rest[1])
