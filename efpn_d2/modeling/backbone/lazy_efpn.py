"""Extended pyramid that computes P'2 only where it is read."""

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
    """:class:`EFPN` with a :class:`LazyP2Prime` as ``p2_prime`` at inference [ours].

    P'2 is a tensor in training, in scripts, in tracing and export, which would record the tiles of
    the example, and if hooks are registered on modules that tiles do not call.
    """

    def __init__(self, *args: Any, lazy: LazyComputation, **kwargs: Any) -> None:
        """
        Args:
            args: see :class:`EFPN`; ``bottom_up`` must be an :class:`ExtendedResNet` that returns
                ``c2_prime``.
            lazy: creates P'2 of each batch.
            kwargs: see :class:`EFPN`.
        """
        super().__init__(*args, **kwargs)
        self._lazy = lazy
        self._reads_all = False
        if self.enhancement is not None and "p2_prime" in self.enhancement.changed_levels():
            lazy.warn_once("the config inserts a module on p2_prime")
            self._reads_all = True

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the pyramid as the base class does, with a lazy ``p2_prime`` if possible."""
        if not torch.jit.is_scripting() and self._is_possible():
            return self._lazy_outputs(x)
        # Scripts do not support super().
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
        """Return a differentiable function for C'2 of many tiles, with folded normalizations."""
        if is_recorded():
            return self.bottom_up.c2_prime
        folded = functools.cache(lambda: fold_normalizations(self.bottom_up.stages[0]))
        return lambda stem_map: folded()(stem_map)

    @torch.jit.unused
    def _is_possible(self) -> bool:
        if self._reads_all or self.training or torch.jit.is_tracing() or _is_exporting():
            return False
        if not isinstance(self.bottom_up, ExtendedResNet):  # wrapped after construction
            return False
        watched = is_watched(self.bottom_up, within=False) or is_watched(self.extension)
        if watched or is_watched(self.bottom_up.stages[0]):
            self._lazy.warn_once("a hook is registered on a module that it would not call")
            return False
        return True


def _is_exporting() -> bool:
    """Check for ``torch.export``, which older versions of torch cannot report."""
    return getattr(torch.compiler, "is_exporting", lambda: False)()
