"""Dense heads with a separate child for a P'2 that has fewer channels than the other levels.

Detectron2's dense heads are shared by all levels, so they support a single number of channels. Here
the stock head keeps its names and shapes, and ``small_head``, of the same class, reads P'2. [ours]
"""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.proposal_generator.rpn import RPN_HEAD_REGISTRY, StandardRPNHead
from torch import Tensor, nn


class _SmallHeadMixin(nn.Module):
    """Base of both heads; precedes a Detectron2 head among the base classes."""

    stock_class: type[StandardRPNHead] | type[RetinaNetHead]
    """Class of ``small_head``, and the next base class."""

    def __init__(self, *, small_head: nn.Module, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.small_head = small_head

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        """Return the arguments of the constructor, for levels from high to low resolution."""
        first, others = split_anchors(cfg)
        small_head = cls.stock_class(first, input_shape[:1])
        of_others = cls.stock_class.from_config(others, input_shape[1:])
        return {**of_others, "small_head": small_head}

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Run the heads on levels from high to low resolution; outputs as in the stock head."""
        small_logits, small_deltas = self.small_head(features[:1])
        logits, deltas = super().forward(features[1:])
        return small_logits + logits, small_deltas + deltas


@RPN_HEAD_REGISTRY.register()
class EFPNRPNHead(_SmallHeadMixin, StandardRPNHead):
    """``StandardRPNHead`` for all levels except the first, P'2, which ``small_head`` reads.

    ``small_head`` may have a different number of anchors per cell.
    """

    stock_class = StandardRPNHead

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        """
        Args:
            kwargs: ``small_head``, and the arguments of ``StandardRPNHead`` for the other levels.
        """
        super().__init__(**kwargs)


class EFPNRetinaNetHead(_SmallHeadMixin, RetinaNetHead):
    """``RetinaNetHead`` for all levels except the first, P'2, which ``small_head`` reads.

    All levels have the same number of anchors per cell, as Detectron2's RetinaNet requires.
    """

    stock_class = RetinaNetHead

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        """
        Args:
            kwargs: ``small_head``, and the arguments of ``RetinaNetHead`` for the other levels.
        """
        super().__init__(**kwargs)


def split_anchors(cfg: CfgNode) -> tuple[CfgNode, CfgNode]:
    """Copy ``cfg`` twice: with the anchors of the first level, and with those of the others."""
    copies = []
    for levels in (slice(1), slice(1, None)):
        own = cfg.clone()
        own.defrost()
        node = own.MODEL.ANCHOR_GENERATOR
        for key in ("SIZES", "ASPECT_RATIOS"):
            # A single entry applies to all levels in Detectron2's anchor generator.
            node[key] = node[key] if len(node[key]) == 1 else list(node[key])[levels]
        copies.append(own)
    first, others = copies
    return first, others
