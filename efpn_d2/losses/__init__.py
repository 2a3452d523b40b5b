"""Losses; they know nothing of the models that they train."""

from efpn_d2.losses.dynamic_gradient_balanced import DynamicGradientBalancedLoss
from efpn_d2.losses.foreground_background_balanced import (
    covered_cells,
    foreground_background_balanced_loss,
)

__all__ = [
    "DynamicGradientBalancedLoss",
    "covered_cells",
    "foreground_background_balanced_loss",
]
