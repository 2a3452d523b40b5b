"""Losses; they know nothing of the models that they train."""

from .dynamic_gradient_balanced import DynamicGradientBalancedLoss
from .foreground_background_balanced import covered_cells, foreground_background_balanced_loss

__all__ = [
    "DynamicGradientBalancedLoss",
    "covered_cells",
    "foreground_background_balanced_loss",
]
