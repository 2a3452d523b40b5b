"""Generic building blocks."""

from .conv import conv_layer
from .dynamic_conv import (
    KernelGenerator,
    SharedAsymmetricKernels,
    depthwise_per_image,
    summed_depthwise_per_image,
)
from .folding import fold_normalizations
from .observation import is_recorded, is_watched
from .residual import BRANCH_GAIN, ResidualBlock
from .sub_pixel import SubPixelUpsample, eq4_permutation, nearest_up2

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
