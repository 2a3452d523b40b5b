"""Blocks without a paper name."""

from efpn_d2.layers.conv import conv_layer
from efpn_d2.layers.dynamic_conv import (
    KernelGenerator,
    SharedAsymmetricKernels,
    depthwise_per_image,
    summed_depthwise_per_image,
)
from efpn_d2.layers.folding import fold_normalizations
from efpn_d2.layers.observation import is_recorded, is_watched
from efpn_d2.layers.residual import BRANCH_GAIN, ResidualBlock
from efpn_d2.layers.sub_pixel import SubPixelUpsample, eq4_permutation, nearest_up2

__all__ = [
    "BRANCH_GAIN",
    "KernelGenerator",
    "ResidualBlock",
    "SharedAsymmetricKernels",
    "SubPixelUpsample",
    "conv_layer",
    "depthwise_per_image",
    "eq4_permutation",
    "fold_normalizations",
    "is_recorded",
    "is_watched",
    "nearest_up2",
    "summed_depthwise_per_image",
]
