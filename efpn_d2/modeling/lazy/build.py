"""Build the lazy computation of P'2 from ``MODEL.EFPN.LAZY``."""

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
    """Create a :class:`LazyP2Prime` for each batch of images."""

    def __init__(self, tile_sides: Sequence[int], dense_above: float) -> None:
        """
        Args:
            tile_sides: see :class:`LazyP2Prime`.
            dense_above: see :class:`LazyP2Prime`.

        Raises:
            ValueError: if there is no tile side, one is not a positive multiple of 8, or
                ``dense_above`` is negative.
        """
        whole = all(isinstance(side, int) for side in tile_sides)
        if not tile_sides or not whole or any(side < 8 or side % 8 for side in tile_sides):
            raise ValueError(
                f"MODEL.EFPN.LAZY_TILE_SIDES is {list(tile_sides)}: use one or more multiples of "
                "8, in cells of P'2."
            )
        if not dense_above >= 0:  # also rejects NaN
            raise ValueError(
                f"MODEL.EFPN.LAZY_DENSE_ABOVE is {dense_above}: use a fraction of P'2's cost, 0.0 "
                "or more."
            )
        self.tile_sides = tuple(tile_sides)
        self.dense_above = dense_above
        self._profiler = ExtensionProfiler()
        self._warned: set[str] = set()

    def start(self, maps: PyramidMaps, stage2: nn.Module) -> LazyP2Prime:
        """Return P'2 of a batch, without computing it yet.

        Args:
            maps: the features that P'2 is computed from.
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
        """Return the profile; None, with a warning, if P'2 must be dense."""
        profile = self._profiler(stage2, extension)
        if profile is None:
            self.warn_once(
                "stage 2 or the extension has a module whose receptive field is unbounded (a "
                "group normalization or SGDM), too large, or depends on the input or the position"
            )
        return profile

    def warn_once(self, reason: str) -> None:
        """Log why P'2 is dense although lazy computation is enabled."""
        if reason not in self._warned:
            self._warned.add(reason)
            logger.warning(_DENSE.format(reason))


def queries_p2_prime(cfg: CfgNode) -> bool:
    """Return whether the RPN reads P'2 only where a coarser level has a high objectness."""
    node = require_node(cfg, "MODEL.EFPN")
    if not (node.LAZY and node.RPN_ON_P2_PRIME and node.LAZY_QUERY_THRESHOLD > 0):
        return False
    return cfg.MODEL.RPN.HEAD_NAME in ("StandardRPNHead", "LazyRPNHead")


def build_lazy_computation(
    cfg: CfgNode, bottom_up: nn.Module, extension: "PyramidExtension"
) -> LazyComputation | None:
    """Build the lazy computation of ``MODEL.EFPN.LAZY``; None if P'2 is dense.

    Args:
        cfg: a config.
        bottom_up: the pyramid's bottom-up network.
        extension: the pyramid's extension.

    Raises:
        ValueError: if the threshold of the query is not an objectness, or see
            :class:`LazyComputation`.
        KeyError: if ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN")
    if not node.LAZY:
        return None
    check_objectness("MODEL.EFPN.LAZY_QUERY_THRESHOLD", node.LAZY_QUERY_THRESHOLD)
    reason = ""
    own_texture = getattr(bottom_up, "texture", "") != "c2_prime" or extension.lateral is None
    if own_texture or extension.channels != cfg.MODEL.FPN.OUT_CHANNELS:
        reason = "lazy P'2 requires a P'2 as wide as the other levels, with C'2 as its texture"
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
