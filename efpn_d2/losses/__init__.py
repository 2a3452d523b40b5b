"""Losses, independent of the models."""

from .dynamic_gradient_balanced import DynamicGradientBalancedLoss
from .foreground_background_balanced import covered_cells, foreground_background_balanced_loss

__all__ = [
    "DynamicGradientBalancedLoss",
    "covered_cells",
    "foreground_background_balanced_loss",
]
