"""Blocks without a paper name."""

from .conv import conv_layer
from .residual import BRANCH_GAIN, BottleneckResidualBlock, ResidualBlock
from .sub_pixel import SubPixelUpsample, eq4_permutation, nearest_up2

__all__ = [
    "BRANCH_GAIN",
    "BottleneckResidualBlock",
    "ResidualBlock",
    "SubPixelUpsample",
    "conv_layer",
    "eq4_permutation",
    "nearest_up2",
]
