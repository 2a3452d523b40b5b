"""Routing and the heads on P'2, shared by the standard and the cascade heads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.roi_heads import StandardROIHeads, select_foreground_proposals
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from efpn_d2.config import require_node
from efpn_d2.modeling.checks import check_features, check_objectness
from efpn_d2.modeling.lazy import LazyP2Prime
from efpn_d2.modeling.roi_heads.balanced_output import balance_predictors
from efpn_d2.modeling.roi_heads.routes import join_routes, small_share, split_instances
from efpn_d2.modeling.roi_heads.routing import BoxRouter, SizeRouter, build_box_router, routing_mode
from efpn_d2.modeling.scripting import renamed

P2_PRIME = "p2_prime"

Features = dict[str, Tensor]
Predictions = tuple[Tensor, Tensor]


class SmallHeadMixin(StandardROIHeads):
    """Separate heads for small boxes, which are pooled from P'2 [paper IV-A3].

    ``small_box_*`` and ``small_mask_*`` are built by the ``_init_*`` methods of the Detectron2
    class combined with, on a config whose input is ``p2_prime``. If they also read the features of
    the stem, the pooled features of both are concatenated. [ours]

    The predictions of both heads are joined in box order *before* loss and NMS, so each sample has
    the same weight in either head, and a single per-class NMS is applied to all boxes; both are
    Detectron2's own.
    """

    # For scripts, which support inference only; subclasses inherit it, unlike an annotation.
    __constants__ = ("training", "mask_on", "keypoint_on")

    _stock_forward_mask = renamed(StandardROIHeads._forward_mask, "_stock_forward_mask")

    def __init__(
        self,
        *,
        router: BoxRouter | None = None,
        small_in_features: Sequence[str] = (P2_PRIME,),
        lazy_min_objectness: float = 0.0,
        small_box_pooler: nn.Module | None = None,
        small_box_head: nn.Module | None = None,
        small_box_predictor: nn.Module | None = None,
        small_mask_pooler: nn.Module | None = None,
        small_mask_head: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            router: decides which boxes are small; None: :class:`SizeRouter`.
            small_in_features: names of the features of stride 2 that the small heads pool from.
            lazy_min_objectness: minimum objectness, from 0 to 1, of small proposals with a lazy
                P'2; the others are dropped.
            small_box_pooler: like ``box_pooler``.
            small_box_head: like ``box_head``.
            small_box_predictor: like ``box_predictor``.
            small_mask_pooler: like ``mask_pooler``.
            small_mask_head: like ``mask_head``; None: the stock mask head reads all boxes.
            kwargs: see the Detectron2 class combined with.

        Raises:
            ValueError: if the mode of ``router`` does not match the existing heads, or
                ``lazy_min_objectness`` is not between 0 and 1.
        """
        super().__init__(**kwargs)
        if router is None:
            router = SizeRouter(mode="none" if small_box_head is None else "reassign")
        if (router.mode == "none") != (small_box_head is None):
            raise ValueError(
                f"{type(self).__name__}: the router's mode is {router.mode}, but there is "
                f"{'no' if small_box_head is None else 'a'} small_box_head: use the mode none "
                "without one, reassign or duplicate with one."
            )
        check_objectness("MODEL.EFPN.LAZY_MIN_OBJECTNESS", lazy_min_objectness)
        self.lazy_min_objectness = lazy_min_objectness
        self.router = router
        self.small_in_features = list(small_in_features)
        # Any: None without routing, when they are not read; a cascade has one head per stage.
        self.small_box_pooler: Any = small_box_pooler
        self.small_box_head: Any = small_box_head
        self.small_box_predictor: Any = small_box_predictor
        self.small_mask_pooler: Any = small_mask_pooler
        self.small_mask_head: Any = small_mask_head

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Raises:
            ValueError: if a listed feature does not exist, or the RPN does not support P'2.
            KeyError: if ``add_efpn_config`` was not called.
        """
        node = require_node(cfg, "MODEL.EFPN")
        check_features("MODEL.ROI_HEADS.IN_FEATURES", cfg.MODEL.ROI_HEADS.IN_FEATURES, input_shape)
        if node.RPN_ON_P2_PRIME and cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RPN":
            raise ValueError(
                "MODEL.EFPN.RPN_ON_P2_PRIME is True, but it is ignored by "
                "MODEL.PROPOSAL_GENERATOR.NAME RPN: set MODEL.PROPOSAL_GENERATOR.NAME to EFPNRPN."
            )
        ret = super().from_config(cfg, input_shape)
        ret["router"] = build_box_router(cfg)
        ret["lazy_min_objectness"] = node.LAZY_MIN_OBJECTNESS
        if ret["router"].mode != "none":
            ret["small_in_features"] = _small_in_features(cfg, input_shape)
        return ret

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        ret = balance_predictors(super()._init_box_head(cfg, input_shape), cfg)
        if routing_mode(cfg) != "none":
            small_cfg = _small_config(cfg, input_shape)
            small = super()._init_box_head(small_cfg, _joined_shape(cfg, input_shape))
            for head in small.get("box_heads", [small.get("box_head")]):
                _balance_maps(head, _map_channels(cfg, input_shape))
            small = balance_predictors(small, cfg)
            names = ("box_pooler", "box_head", "box_heads", "box_predictor", "box_predictors")
            ret.update({f"small_{name}": small[name] for name in names if name in small})
        return ret

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        ret = super()._init_mask_head(cfg, input_shape)
        # Without a pooler the mask head reads whole features, and there is nothing to route.
        if ret.get("mask_pooler") is not None and routing_mode(cfg) != "none":
            small_cfg = _small_config(cfg, input_shape)
            small = super()._init_mask_head(small_cfg, _joined_shape(cfg, input_shape))
            _balance_maps(small["mask_head"], _map_channels(cfg, input_shape))
            ret["small_mask_pooler"] = small["mask_pooler"]
            ret["small_mask_head"] = small["mask_head"]
        return ret

    def forward(
        self,
        images: ImageList,
        features: Features,
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Run the heads, without small proposals of low objectness if P'2 is lazy."""
        p2_prime = features.get(P2_PRIME)
        if isinstance(p2_prime, LazyP2Prime):
            if self.training:  # only the backbone is in evaluation mode
                features = {**features, P2_PRIME: p2_prime.dense()}
            else:
                proposals = [self._worth_computing(x) for x in proposals]
        return super().forward(images, features, proposals, targets)

    def _worth_computing(self, proposals: Instances) -> Instances:
        if self.lazy_min_objectness == 0 or not proposals.has("objectness_logits"):
            return proposals
        small = self.router(proposals.proposal_boxes.tensor)
        seen = proposals.objectness_logits.sigmoid() >= self.lazy_min_objectness
        return proposals[seen | ~small]

    def _route(self, boxes: list[Boxes]) -> list[Tensor]:
        """Return one route per image, see :mod:`.routes`."""
        return [self.router(b.tensor) for b in boxes]

    @contextmanager
    def routed_by(self, router: BoxRouter) -> Iterator[None]:
        """Replace the router by another one of the same mode within a context."""
        own, self.router = self.router, router
        try:
            yield
        finally:
            self.router = own

    def _log_route(self, routes: list[Tensor]) -> None:
        get_event_storage().put_scalar("roi_head/small_box_share", small_share(routes))

    def _pool_small(
        self, pooler: ROIPooler, feature: Tensor | LazyP2Prime, boxes: list[Boxes]
    ) -> Tensor:
        """Pool small boxes from P'2: (number of boxes, C, S, S).

        Pooling is in fp32, because Detectron2's ``ROIAlign`` casts the boxes to the data type of
        the features: half precision would move a 4 px object at x = 1300 by up to 4 px.
        """
        if isinstance(feature, LazyP2Prime):
            return feature.pool(pooler, boxes).to(feature.dtype)
        return pooler([feature.float()], boxes).to(feature.dtype)

    def _pool_small_boxes(self, features: Features, boxes: list[Boxes]) -> Tensor:
        """Pool all features of the small box head: (number of boxes, C, S, S)."""
        if torch.jit.is_scripting():  # scripts do not pass modules as arguments
            maps = [features[x] for x in self.small_in_features]
            return torch.cat([self.small_box_pooler([x], boxes) for x in maps], dim=1)
        return self._pool_all(self.small_box_pooler, features, boxes)

    def _pool_small_masks(self, features: Features, boxes: list[Boxes]) -> Tensor:
        """Pool all features of the small mask head: (number of boxes, C, S, S)."""
        if torch.jit.is_scripting():
            maps = [features[x] for x in self.small_in_features]
            return torch.cat([self.small_mask_pooler([x], boxes) for x in maps], dim=1)
        return self._pool_all(self.small_mask_pooler, features, boxes)

    def _pool_all(self, pooler: ROIPooler, features: Features, boxes: list[Boxes]) -> Tensor:
        pooled = [self._pool_small(pooler, features[x], boxes) for x in self.small_in_features]
        return torch.cat(pooled, dim=1)

    def _tie_unread_map(
        self, result: dict[str, Tensor] | list[Instances], features: Features
    ) -> dict[str, Tensor] | list[Instances]:
        """Add 0 with a gradient path to P'2 to the first loss if P'2 is not read.

        The parameters behind P'2 then get zero gradients instead of none, for which
        ``DistributedDataParallel`` would wait. The sum is over no elements, so it is 0 for any
        features.
        """
        if not isinstance(result, dict) or P2_PRIME not in features:
            return result
        name = next(iter(result))
        return {**result, name: result[name] + features[P2_PRIME][:0].sum()}

    def _forward_mask(
        self, features: Features, instances: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        """Run the mask heads; the small mask head predicts the masks of small boxes."""
        if not self.training:
            return self._predict_masks(features, instances)
        if not self.mask_on or self.small_mask_head is None:
            return self._stock_forward_mask(features, instances)
        instances, _ = select_foreground_proposals(instances, self.num_classes)
        routes = self._route([x.proposal_boxes for x in instances])
        small, rest = split_instances(instances, routes)
        pooled = self._pool_small_masks(features, [x.proposal_boxes for x in small])
        losses = self._stock_forward_mask(features, rest)
        with get_event_storage().name_scope("small"):
            small_losses = self.small_mask_head(pooled, small)
        # The mean over all masks, as if a single head had predicted them.
        share = small_share(routes)
        return {k: (1 - share) * v + share * small_losses[k] for k, v in losses.items()}

    def _predict_masks(self, features: Features, instances: list[Instances]) -> list[Instances]:
        """Run :meth:`_forward_mask` at inference and in scripts."""
        if not self.mask_on or self.small_mask_head is None:
            return self._stock_forward_mask(features, instances)
        routes = self._route([x.pred_boxes for x in instances])
        small, rest = split_instances(instances, routes)
        pooled = self._pool_small_masks(features, [x.pred_boxes for x in small])
        rest = self._stock_forward_mask(features, rest)
        small = self.small_mask_head(pooled, small)
        for i, route in enumerate(routes):
            instances[i].pred_masks = join_routes(route, small[i].pred_masks, rest[i].pred_masks)
        return instances

    def forward_with_given_boxes(
        self, features: Features, instances: list[Instances]
    ) -> list[Instances]:
        """Predict masks and keypoints as the class combined with does."""
        if torch.jit.is_scripting():
            return self._forward_keypoint(features, self._predict_masks(features, instances))
        return super().forward_with_given_boxes(features, instances)


def _small_config(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> CfgNode:
    """Copy ``cfg`` with ROI heads that read P'2 only."""
    check_features(
        f"MODEL.ROI_HEADS.NAME {cfg.MODEL.ROI_HEADS.NAME}",
        [P2_PRIME],
        input_shape,
        hint="set MODEL.BACKBONE.NAME to build_resnet_efpn_backbone",
    )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.IN_FEATURES = [P2_PRIME]
    return cfg


def _small_in_features(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> list[str]:
    """Return the names of the features of the small heads in order, P'2 last."""
    names = list(require_node(cfg, "MODEL.EFPN").SMALL_IN_FEATURES)
    if not names:
        return [x for x in ("stem_map", P2_PRIME) if x in input_shape]
    if names not in ([P2_PRIME], ["stem_map", P2_PRIME]):
        raise ValueError(
            f"MODEL.EFPN.SMALL_IN_FEATURES is {names}: use [p2_prime] or [stem_map, p2_prime]."
        )
    check_features(
        "MODEL.EFPN.SMALL_IN_FEATURES", names, input_shape, hint="set MODEL.EFPN.TEXTURE stem_map"
    )
    return names


def _joined_shape(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, ShapeSpec]:
    """Return ``input_shape`` with the channels of all features of small heads in ``p2_prime``."""
    channels = sum(_map_channels(cfg, input_shape))
    return {**input_shape, P2_PRIME: ShapeSpec(channels, stride=input_shape[P2_PRIME].stride)}


def _map_channels(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> list[int]:
    """Return the channels of the features that the small heads read."""
    return [input_shape[name].channels for name in _small_in_features(cfg, input_shape)]


@torch.no_grad()
def _balance_maps(head: nn.Module, channels: list[int]) -> None:
    """Scale the first layer's new weights so that all features have the same share of its output.

    Otherwise the features with fewer channels would have a smaller share.

    Args:
        head: a head of Detectron2.
        channels: channels of the features, in the order of the layer's inputs.
    """
    if len(channels) == 1:
        return
    first = next(x for x in head.modules() if hasattr(x, "weight"))
    if isinstance(first, nn.ConvTranspose2d):
        raise ValueError(
            "MODEL.EFPN.SMALL_IN_FEATURES names two features, but MODEL.ROI_MASK_HEAD.NUM_CONV is "
            "0, so no convolution joins them: use 1 or more."
        )
    weight = first.get_parameter("weight")
    by_map = weight.view(len(weight), sum(channels), -1).split(channels, dim=1)
    for part, own in zip(by_map, channels, strict=True):
        part.mul_((sum(channels) / (len(channels) * own)) ** 0.5)
