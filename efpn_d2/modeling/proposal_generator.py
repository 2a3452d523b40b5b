"""RPN that can also propose on P'2."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN

from efpn_d2.config import require_node

from .checks import check_features

__all__ = ["EFPNRPN"]


@PROPOSAL_GENERATOR_REGISTRY.register()
class EFPNRPN(RPN):
    """Detectron2's RPN; with ``MODEL.EFPN.RPN_ON_P2_PRIME`` it reads one more level, ``p2_prime``.

    The head is shared by all levels and keeps its shape, so stock RPN weights fit. [ours; the paper
    proposes on the stock levels]
    """

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        """Args: those of Detectron2's ``RPN``."""
        super().__init__(**kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """
        Raises:
            ValueError: a listed map does not exist, or P'2 gets another number of anchors per cell
                than the other levels.
        """
        if require_node(cfg, "MODEL.EFPN").RPN_ON_P2_PRIME:
            cfg = _with_p2_prime(cfg)
        check_features("MODEL.RPN.IN_FEATURES", cfg.MODEL.RPN.IN_FEATURES, input_shape)
        return super().from_config(cfg, input_shape)


def _with_p2_prime(cfg: CfgNode) -> CfgNode:
    """A copy of ``cfg`` in which the RPN's first level is P'2, with anchors of its own."""
    names = list(cfg.MODEL.RPN.IN_FEATURES)
    if "p2_prime" in names:
        raise ValueError(
            "MODEL.RPN.IN_FEATURES names p2_prime, and MODEL.EFPN.RPN_ON_P2_PRIME would add it "
            "again: remove it from the list, or switch the key off and give all anchors yourself."
        )
    # One entry stands for all levels in Detectron2's anchor generator.
    sizes = _per_level(cfg.MODEL.ANCHOR_GENERATOR.SIZES, len(names))
    ratios = _per_level(cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS, len(names))
    own_sizes = list(cfg.MODEL.EFPN.P2_PRIME_ANCHOR_SIZES)
    if not all(isinstance(size, int | float) for size in own_sizes):
        raise ValueError(
            f"MODEL.EFPN.P2_PRIME_ANCHOR_SIZES is {own_sizes}: it is for one level, so write its "
            "sizes without inner brackets, like [16]."
        )
    if len(own_sizes) != len(sizes[0]):
        raise ValueError(
            f"MODEL.EFPN.P2_PRIME_ANCHOR_SIZES has {len(own_sizes)} sizes, but the other levels "
            f"have {len(sizes[0])} (MODEL.ANCHOR_GENERATOR.SIZES) and all share one RPN head: give "
            f"{len(sizes[0])}."
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.RPN.IN_FEATURES = ["p2_prime", *names]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [own_sizes, *sizes]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [ratios[0], *ratios]
    return cfg


def _per_level(values: list[list[float]], num_levels: int) -> list[list[float]]:
    return list(values) * num_levels if len(values) == 1 else list(values)
