"""Blocks without a paper name."""

from .conv import conv_layer
from .dynamic_conv import KernelGenerator, SharedAsymmetricKernels, depthwise_per_image
from .residual import BRANCH_GAIN, BottleneckResidualBlock, ResidualBlock
from .sub_pixel import SubPixelUpsample, eq4_permutation, nearest_up2

__all__ = [
    "BRANCH_GAIN",
    "BottleneckResidualBlock",
    "KernelGenerator",
    "ResidualBlock",
    "SharedAsymmetricKernels",
    "SubPixelUpsample",
    "conv_layer",
    "depthwise_per_image",
    "eq4_permutation",
    "nearest_up2",
]
