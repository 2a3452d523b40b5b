"""Figures of what a trained network computes inside: features, masks, distances to targets."""
