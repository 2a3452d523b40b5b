"""Figures of a network's internals: features, masks, and distances to the distillation targets."""
