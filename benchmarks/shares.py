"""How much of P'2 lazy detectors compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from efpn_d2.modeling.lazy import LazyP2Prime


@contextmanager
def shares_computed(shares: list[float]) -> Iterator[None]:
    """Append the share of P'2 that was computed for each batch, when boxes are pooled from it."""
    pool = LazyP2Prime.pool

    def record(self: LazyP2Prime, *args: Any) -> torch.Tensor:
        """``pool``, and the share after it."""
        pooled = pool(self, *args)
        shares.append(self.active_share)
        return pooled

    LazyP2Prime.pool = record
    try:
        yield
    finally:
        LazyP2Prime.pool = pool
