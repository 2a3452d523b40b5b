"""What the standard and the cascade heads share: the routing and the heads that read P'2."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.roi_heads import StandardROIHeads, select_foreground_proposals
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from efpn_d2.config import SMALL_BOX_SIZE, require_node
from efpn_d2.modeling.checks import check_features, check_objectness
from efpn_d2.modeling.lazy import LazyP2Prime
from efpn_d2.modeling.presets import get_preset
from efpn_d2.modeling.roi_heads.balanced_output import balance_predictors
from efpn_d2.modeling.roi_heads.routing import is_small_box, join_routes

ROUTINGS = ("reassign", "duplicate", "none")
P2_PRIME = "p2_prime"

Features = dict[str, Tensor]
Predictions = tuple[Tensor, Tensor]
BoxesOrInstances = TypeVar("BoxesOrInstances", Boxes, Instances)


class SmallHeadMixin(StandardROIHeads):
    """Heads of their own for small boxes, pooled from P'2 [paper IV-A3].

    ``small_box_*`` and ``small_mask_*`` are built by the very ``_init_*`` methods of the Detectron2
    class mixed with, on a config whose input is ``p2_prime``. If they read the stem's map,
    too, what is pooled from both is concatenated. [ours]

    Both heads' predictions are joined in the order of the boxes *before* loss and NMS, so that each
    sample weighs the same whichever head has it, and one per-class NMS sees all boxes; both are
    Detectron2's own.
    """

    def __init__(
        self,
        *,
        small_box_size: float = SMALL_BOX_SIZE,
        routing: str = "auto",
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
            small_box_size: boxes with sqrt(w * h) below it, in pixels of the network's input, are
                small.
            routing: ``reassign``: small boxes go to the small head only; ``duplicate``: to both
                heads; ``none``: there is no small head; ``auto``: ``reassign`` if there is one.
            small_in_features: the maps of stride 2 that the small heads pool from.
            lazy_min_objectness: least objectness, from 0 to 1, of a small proposal that a lazy map
                is computed for; the others are dropped.
            small_box_pooler, small_box_head, small_box_predictor: like ``box_*``.
            small_mask_pooler, small_mask_head: like ``mask_*``; None: the stock mask head has all.
            kwargs: of the Detectron2 class mixed with.

        Raises:
            ValueError: ``small_box_size`` is not positive, ``routing`` is unknown, or
                ``lazy_min_objectness`` is not from 0 to 1.
        """
        super().__init__(**kwargs)
        if routing == "auto":
            routing = "none" if small_box_head is None else "reassign"
        if small_box_size <= 0:
            raise ValueError(
                f"MODEL.EFPN.SMALL_BOX_SIZE is {small_box_size}, but it is a length in pixels: use "
                "a positive number, or MODEL.EFPN.ROUTING none to send no box to P'2."
            )
        if routing not in ROUTINGS:
            raise ValueError(
                f"MODEL.EFPN.ROUTING is '{routing}', which does not exist: use auto or one of "
                f"{', '.join(ROUTINGS)}."
            )
        check_objectness("MODEL.EFPN.LAZY_MIN_OBJECTNESS", lazy_min_objectness)
        self.lazy_min_objectness = lazy_min_objectness
        self.small_box_size = small_box_size
        self.routing = routing
        self.small_in_features = tuple(small_in_features)
        self.small_box_pooler = small_box_pooler
        # Any: one, or in a cascade one per stage; None without routing, when nothing reads them.
        self.small_box_head: Any = small_box_head
        self.small_box_predictor: Any = small_box_predictor
        self.small_mask_pooler = small_mask_pooler
        self.small_mask_head = small_mask_head

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """
        Raises:
            ValueError: a listed map does not exist, or the RPN cannot read P'2 as asked for.
            KeyError: ``add_efpn_config`` was not called.
        """
        node = require_node(cfg, "MODEL.EFPN")
        check_features("MODEL.ROI_HEADS.IN_FEATURES", cfg.MODEL.ROI_HEADS.IN_FEATURES, input_shape)
        if node.RPN_ON_P2_PRIME and cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RPN":
            raise ValueError(
                "MODEL.EFPN.RPN_ON_P2_PRIME is on, but MODEL.PROPOSAL_GENERATOR.NAME is RPN, which "
                "does not know it: set it to EFPNRPN."
            )
        ret = super().from_config(cfg, input_shape)
        ret["small_box_size"] = node.SMALL_BOX_SIZE
        ret["routing"] = _routing(cfg)
        ret["lazy_min_objectness"] = node.LAZY_MIN_OBJECTNESS
        if ret["routing"] != "none":
            ret["small_in_features"] = _small_in_features(cfg, input_shape)
        return ret

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        ret = balance_predictors(super()._init_box_head(cfg, input_shape), cfg)
        if _routing(cfg) != "none":
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
        # Without a pooler the mask head reads whole maps, and there is nothing to route.
        if ret.get("mask_pooler") is not None and _routing(cfg) != "none":
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
        """As in the class mixed with, without the small proposals that a lazy P'2 is not worth."""
        p2_prime = features.get(P2_PRIME)
        if isinstance(p2_prime, LazyP2Prime):
            if self.training:  # the backbone alone is in evaluation mode
                features = {**features, P2_PRIME: p2_prime.dense()}
            else:
                proposals = [self._worth_computing(x) for x in proposals]
        return super().forward(images, features, proposals, targets)

    def _worth_computing(self, proposals: Instances) -> Instances:
        if self.lazy_min_objectness == 0 or not proposals.has("objectness_logits"):
            return proposals
        small = is_small_box(proposals.proposal_boxes.tensor, self.small_box_size)
        seen = proposals.objectness_logits.sigmoid() >= self.lazy_min_objectness
        return proposals[seen | ~small]

    def _route(self, boxes: list[Boxes]) -> list[Tensor]:
        """One route per image, see :mod:`.routing`."""
        return [is_small_box(b.tensor, self.small_box_size) for b in boxes]

    def _log_route(self, routes: list[Tensor]) -> None:
        get_event_storage().put_scalar("roi_head/small_box_share", small_share(routes))

    def _pool_small(
        self, pooler: ROIPooler, feature: Tensor | LazyP2Prime, boxes: list[Boxes]
    ) -> Tensor:
        """Small boxes pooled from P'2: (number of boxes, C, S, S).

        In fp32, because Detectron2's ``ROIAlign`` brings the boxes to the type of the map: half
        precision would move a 4 px object at x = 1300 by up to 4 px.
        """
        if isinstance(feature, LazyP2Prime):
            return feature.pool(pooler, boxes).to(feature.dtype)
        return pooler([feature.float()], boxes).to(feature.dtype)

    def _pool_small_boxes(self, features: Features, boxes: list[Boxes]) -> Tensor:
        """What the small box head reads, from all its maps: (number of boxes, C, S, S)."""
        return self._pool_all(self.small_box_pooler, features, boxes)

    def _pool_small_masks(self, features: Features, boxes: list[Boxes]) -> Tensor:
        """What the small mask head reads, from all its maps: (number of boxes, C, S, S)."""
        return self._pool_all(self.small_mask_pooler, features, boxes)

    def _pool_all(self, pooler: ROIPooler, features: Features, boxes: list[Boxes]) -> Tensor:
        pooled = [self._pool_small(pooler, features[x], boxes) for x in self.small_in_features]
        return torch.cat(pooled, dim=1)

    def _tie_unread_map(
        self, result: dict[str, Tensor] | list[Instances], features: Features
    ) -> dict[str, Tensor] | list[Instances]:
        """Without routing: add exactly nothing to the first loss, but with a gradient path to P'2.

        The parameters behind a map that no head reads get zero gradients instead of none, for which
        ``DistributedDataParallel`` would wait. The sum is one over no element, so it is 0 whatever
        the map contains.
        """
        if not isinstance(result, dict) or P2_PRIME not in features:
            return result
        name = next(iter(result))
        return {**result, name: result[name] + features[P2_PRIME][:0].sum()}

    def _forward_mask(
        self, features: Features, instances: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        """Detectron2's, with the masks of small boxes made by the small mask head."""
        if not self.mask_on or self.small_mask_head is None:
            return super()._forward_mask(features, instances)
        if self.training:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
        boxes = [x.proposal_boxes if self.training else x.pred_boxes for x in instances]
        routes = self._route(boxes)
        small, rest = split_by_route(instances, routes)
        small_boxes = [x.proposal_boxes if self.training else x.pred_boxes for x in small]
        pooled = self._pool_small_masks(features, small_boxes)
        if self.training:
            losses = super()._forward_mask(features, rest)
            with get_event_storage().name_scope("small"):
                small_losses = self.small_mask_head(pooled, small)
            # The mean over all masks, as if one head had made them.
            share = small_share(routes)
            return {k: (1 - share) * v + share * small_losses[k] for k, v in losses.items()}
        rest = super()._forward_mask(features, rest)
        small = self.small_mask_head(pooled, small)
        for x, route, *parts in zip(instances, routes, small, rest, strict=True):
            x.pred_masks = join_routes(route, *(part.pred_masks for part in parts))
        return instances


def small_share(routes: list[Tensor]) -> float:
    """Share of the boxes of a batch that the small head has; 0 without any box."""
    return sum(int(route.sum()) for route in routes) / max(sum(map(len, routes)), 1)


def split_by_route(
    per_image: list[BoxesOrInstances], routes: list[Tensor]
) -> tuple[list[BoxesOrInstances], list[BoxesOrInstances]]:
    """The boxes or instances of each image, split into those of the small head and the others."""
    small = [x[route] for x, route in zip(per_image, routes, strict=True)]
    rest = [x[~route] for x, route in zip(per_image, routes, strict=True)]
    return small, rest


def boxes_only(proposals: Instances, fields: tuple[str, ...] = ("proposal_boxes",)) -> Instances:
    """The proposals with those of ``fields`` that they have, and nothing else."""
    present = {name: proposals.get(name) for name in fields if proposals.has(name)}
    return Instances(proposals.image_size, **present)


def append_small_copies(
    instances: list[Instances], routes: list[Tensor]
) -> tuple[list[Instances], list[Tensor]]:
    """For ``duplicate`` routing: append to each image a copy of its small boxes.

    Returns:
        The longer instances, with just the fields that box losses read, and their routes: False for
        the originals, which stay with the stock head, True for the copies.
    """
    instances = [boxes_only(x, ("proposal_boxes", "gt_boxes", "gt_classes")) for x in instances]
    small, _ = split_by_route(instances, routes)
    both = [Instances.cat([x, copy]) for x, copy in zip(instances, small, strict=True)]
    routes = [torch.cat([torch.zeros_like(route), route[route]]) for route in routes]
    return both, routes


def _routing(cfg: CfgNode) -> str:
    node = require_node(cfg, "MODEL.EFPN")
    return get_preset(node.PRESET).routing if node.ROUTING == "auto" else node.ROUTING


def _small_config(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> CfgNode:
    """A copy of ``cfg`` whose ROI heads read P'2 only."""
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
    """The maps that the small heads read, P'2 last, as they are concatenated."""
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
    """``input_shape`` with all channels that the small heads read in ``p2_prime``."""
    channels = sum(_map_channels(cfg, input_shape))
    return {**input_shape, P2_PRIME: ShapeSpec(channels, stride=input_shape[P2_PRIME].stride)}


def _map_channels(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> list[int]:
    """Channels of the maps that the small heads read."""
    return [input_shape[name].channels for name in _small_in_features(cfg, input_shape)]


@torch.no_grad()
def _balance_maps(head: nn.Module, channels: list[int]) -> None:
    """Scale the first layer's new weights so that each map has the same share of its output.

    Otherwise the narrower one would have less of it.

    Args:
        head: a head of Detectron2.
        channels: of the maps, in their order among the layer's inputs.
    """
    if len(channels) == 1:
        return
    first = next(x for x in head.modules() if hasattr(x, "weight"))
    if isinstance(first, nn.ConvTranspose2d):
        raise ValueError(
            "MODEL.EFPN.SMALL_IN_FEATURES names two maps, but MODEL.ROI_MASK_HEAD.NUM_CONV is 0: "
            "no convolution could join them; use 1 or more."
        )
    weight = first.get_parameter("weight")
    by_map = weight.view(len(weight), sum(channels), -1).split(channels, dim=1)
    for part, own in zip(by_map, channels, strict=True):
        part.mul_((sum(channels) / (len(channels) * own)) ** 0.5)
