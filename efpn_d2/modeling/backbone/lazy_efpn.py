"""The extended pyramid that computes P'2 only where it is read."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from efpn_d2.layers import fold_normalizations, is_recorded, is_watched
from efpn_d2.modeling.backbone.efpn import EFPN
from efpn_d2.modeling.backbone.extended_resnet import ExtendedResNet
from efpn_d2.modeling.lazy import LazyComputation, PyramidMaps


class LazyEFPN(EFPN):
    """:class:`EFPN` whose ``p2_prime`` is a :class:`LazyP2Prime` at inference. [ours]

    It is a tensor in training, in scripts, where a trace or an export would keep the tiles of its
    example, and where someone's hooks wait for calls that tiles do without.
    """

    def __init__(self, *args: Any, lazy: LazyComputation, **kwargs: Any) -> None:
        """
        Args:
            args, kwargs: those of :class:`EFPN`, with an :class:`ExtendedResNet` that returns
                ``c2_prime`` as ``bottom_up``.
            lazy: makes P'2 of each batch.
        """
        super().__init__(*args, **kwargs)
        self._lazy = lazy
        self._reads_all = False
        if self.enhancement is not None and "p2_prime" in self.enhancement.changed_levels():
            lazy.warn_once("the config inserts a block on p2_prime")
            self._reads_all = True

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """As in the base class, but for ``p2_prime``."""
        if not torch.jit.is_scripting() and self._is_possible():
            return self._lazy_outputs(x)
        # A script cannot call the base class's.
        return self.enhance(self.plain_outputs(x))

    @torch.jit.unused
    def _lazy_outputs(self, x: Tensor) -> dict[str, Any]:
        stem_map = self.bottom_up.stem_map(x)
        bottom_up_features = self.bottom_up.stock_outputs(stem_map)
        merged = self.top_down(bottom_up_features)
        maps = PyramidMaps(
            stem_map,
            merged["merged2"],
            merged["merged3"],
            self._c2_prime_of_tiles(),
            self.extension,
        )
        stock = self.enhance(self.stock_outputs(bottom_up_features, merged))
        return {"p2_prime": self._lazy.start(maps, self.bottom_up.stages[0]), **stock}

    def _c2_prime_of_tiles(self) -> Callable[[Tensor], Tensor]:
        """C'2 of many tiles of a batch, with the normalisations folded once; differentiable."""
        if is_recorded():
            return self.bottom_up.c2_prime
        folded = functools.cache(lambda: fold_normalizations(self.bottom_up.stages[0]))
        return lambda stem_map: folded()(stem_map)

    @torch.jit.unused
    def _is_possible(self) -> bool:
        if self._reads_all or self.training or torch.jit.is_tracing() or _is_exporting():
            return False
        if not isinstance(self.bottom_up, ExtendedResNet):  # wrapped since
            return False
        watched = is_watched(self.bottom_up, within=False) or is_watched(self.extension)
        if watched or is_watched(self.bottom_up.stages[0]):
            self._lazy.warn_once("a hook waits for calls that would not be made")
            return False
        return True


def _is_exporting() -> bool:
    """Of which older versions of torch do not tell."""
    return getattr(torch.compiler, "is_exporting", lambda: False)()
