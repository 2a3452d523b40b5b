"""Losses; they know nothing of the models that they train."""

from .foreground_background_balanced import covered_cells, foreground_background_balanced_loss

__all__ = ["covered_cells", "foreground_background_balanced_loss"]
