"""Whether and how a pyramid computes P'2 on demand, as ``MODEL.EFPN.LAZY`` says."""

import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from detectron2.config import CfgNode
from torch import nn

from efpn_d2.config import require_node
from efpn_d2.modeling.checks import check_objectness
from efpn_d2.modeling.lazy.lazy_map import LazyP2Prime
from efpn_d2.modeling.lazy.profile import ExtensionProfile, ExtensionProfiler
from efpn_d2.modeling.lazy.tiles import PyramidMaps

if TYPE_CHECKING:  # the pyramid imports this
    from efpn_d2.modeling.backbone.extension import PyramidExtension


logger = logging.getLogger(__name__)

_DENSE = "MODEL.EFPN.LAZY is on, but {}: P'2 is computed densely."


class LazyComputation:
    """Makes a :class:`LazyP2Prime` of each batch of images."""

    def __init__(self, tile_sides: Sequence[int], dense_above: float) -> None:
        """
        Args: see :class:`LazyP2Prime`.

        Raises:
            ValueError: there is no tile side, or one is not a positive multiple of 8, or
                ``dense_above`` is not a share.
        """
        whole = all(isinstance(side, int) for side in tile_sides)
        if not tile_sides or not whole or any(side < 8 or side % 8 for side in tile_sides):
            raise ValueError(
                f"MODEL.EFPN.LAZY_TILE_SIDES is {list(tile_sides)}: give one or more multiples of "
                "8, in cells of P'2."
            )
        if not dense_above >= 0:  # nor nan
            raise ValueError(
                f"MODEL.EFPN.LAZY_DENSE_ABOVE is {dense_above}: give a share of P'2's cost, 0.0 or "
                "more."
            )
        self.tile_sides = tuple(tile_sides)
        self.dense_above = dense_above
        self._profiler = ExtensionProfiler()
        self._warned: set[str] = set()

    def start(self, maps: PyramidMaps, stage2: nn.Module) -> LazyP2Prime:
        """P'2 of a batch, nothing of which is computed yet.

        Args:
            maps: what it is made of.
            stage2: the module behind ``maps.stage2``.
        """
        return LazyP2Prime(
            maps,
            functools.partial(self._get_profile, stage2, maps.extension),
            tile_sides=self.tile_sides,
            dense_above=self.dense_above,
        )

    def _get_profile(
        self, stage2: nn.Module, extension: "PyramidExtension"
    ) -> ExtensionProfile | None:
        """None, with a warning, where P'2 must be dense."""
        profile = self._profiler(stage2, extension)
        if profile is None:
            self.warn_once(
                "stage 2 or the extension has a module that reads its whole input (a group "
                "normalisation or SGDM), too far, or where its input says"
            )
        return profile

    def warn_once(self, reason: str) -> None:
        """Say why P'2 is dense though it was asked to be lazy."""
        if reason not in self._warned:
            self._warned.add(reason)
            logger.warning(_DENSE.format(reason))


def queries_p2_prime(cfg: CfgNode) -> bool:
    """Whether the RPN is to read P'2 only where a coarser level sees something."""
    node = require_node(cfg, "MODEL.EFPN")
    if not (node.LAZY and node.RPN_ON_P2_PRIME and node.LAZY_QUERY_THRESHOLD > 0):
        return False
    return cfg.MODEL.RPN.HEAD_NAME in ("StandardRPNHead", "LazyRPNHead")


def build_lazy_computation(
    cfg: CfgNode, bottom_up: nn.Module, extension: "PyramidExtension"
) -> LazyComputation | None:
    """What ``MODEL.EFPN.LAZY`` asks for; None: P'2 is dense.

    Args:
        cfg: a config.
        bottom_up, extension: of the pyramid.

    Raises:
        ValueError: see :class:`LazyComputation`; or the query's threshold is no objectness.
        KeyError: ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN")
    if not node.LAZY:
        return None
    check_objectness("MODEL.EFPN.LAZY_QUERY_THRESHOLD", node.LAZY_QUERY_THRESHOLD)
    reason = ""
    own_texture = getattr(bottom_up, "texture", "") != "c2_prime" or extension.lateral is None
    if own_texture or extension.channels != cfg.MODEL.FPN.OUT_CHANNELS:
        reason = "it is for a P'2 as wide as the other levels with C'2 as its texture"
    elif extension.level2_lateral is not None:
        reason = "the detector reads all of P'2"
    elif "p2_prime" in cfg.MODEL.RPN.IN_FEATURES or (
        node.RPN_ON_P2_PRIME and not queries_p2_prime(cfg)
    ):
        reason = "the RPN reads all of P'2"
    elif "p2_prime" in cfg.MODEL.ROI_HEADS.IN_FEATURES:
        reason = "MODEL.ROI_HEADS.IN_FEATURES names p2_prime"
    elif "p2_prime" in cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES:
        reason = "MODEL.SEM_SEG_HEAD.IN_FEATURES names p2_prime"
    if reason:
        logger.warning(_DENSE.format(reason))
        return None
    return LazyComputation(node.LAZY_TILE_SIDES, node.LAZY_DENSE_ABOVE)
