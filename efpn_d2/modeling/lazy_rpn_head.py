"""RPN head that scores P'2 only where a coarser level detects objects."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator.rpn import RPN_HEAD_REGISTRY, StandardRPNHead
from torch import Tensor
from torch.nn import functional as F

from efpn_d2.config import require_node
from efpn_d2.modeling.checks import check_objectness
from efpn_d2.modeling.lazy import LazyP2Prime, profile_step


@RPN_HEAD_REGISTRY.register()
class LazyRPNHead(StandardRPNHead):
    """``StandardRPNHead`` that reads a :class:`LazyP2Prime` as its first level.

    The level after P'2 is the query: around its cells with an objectness of at least the threshold,
    P'2 is computed and scored; elsewhere there are no proposals on P'2. The result is therefore
    **approximate**: objects that the query misses completely are missed. With a dense P'2 it equals
    ``StandardRPNHead``. [ours]
    """

    @configurable
    def __init__(self, *, query_threshold: float, **kwargs: Any) -> None:
        """
        Args:
            query_threshold: minimum objectness of a cell of the query, from 0 to 1.
            kwargs: see ``StandardRPNHead``.

        Raises:
            ValueError: if the threshold is not between 0 and 1.
        """
        super().__init__(**kwargs)
        check_objectness("MODEL.EFPN.LAZY_QUERY_THRESHOLD", query_threshold)
        self.query_threshold = query_threshold
        self._halo: int | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        threshold = require_node(cfg, "MODEL.EFPN").LAZY_QUERY_THRESHOLD
        return {**super().from_config(cfg, input_shape), "query_threshold": threshold}

    def forward(self, features: list[Tensor | LazyP2Prime]) -> tuple[list[Tensor], list[Tensor]]:
        """Score all levels as the base class does; logits of skipped cells of P'2 are -inf."""
        p2_prime, *others = features
        if not isinstance(p2_prime, LazyP2Prime):
            return super().forward(features)
        if self.training:  # only the backbone is in evaluation mode
            return super().forward([p2_prime.dense(), *others])
        logits, deltas = super().forward(others)
        wanted = logits[0].sigmoid().amax(dim=1) >= self.query_threshold
        cells = _finer_cells(wanted, p2_prime.shape[-2:])
        made = p2_prime.read(self._score, self._score_halo(), cells, (-torch.inf, 0.0))
        return [made[0], *logits], [made[1], *deltas]

    def _score(self, p2_prime: Tensor) -> list[Tensor]:
        """Return logits and deltas of one level."""
        logits, deltas = super().forward([p2_prime])
        return [logits[0], deltas[0]]

    def _score_halo(self) -> int:
        if self._halo is None:
            first = next(x for x in self.modules() if isinstance(x, torch.nn.Conv2d))
            found = profile_step(self, lambda head, x: head._score(x)[0], [first.in_channels])
            if found is None:
                raise ValueError(
                    "MODEL.EFPN.LAZY is on, but the RPN head needs whole features: set it to False."
                )
            self._halo = found.halo
        return self._halo


def _finer_cells(wanted: Tensor, size: Sequence[int]) -> Tensor:
    """Return (R, 3), the cells of features of ``size`` inside wanted coarser cells (N, h, w)."""
    finer = F.interpolate(wanted[:, None].float(), size=list(size), mode="nearest")
    return finer[:, 0].nonzero()
