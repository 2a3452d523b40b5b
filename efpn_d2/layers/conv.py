"""The convolution that all parts of the extension are made of."""

import math
from collections.abc import Callable

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import Conv2d, get_norm
from torch import nn


def conv_layer(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    norm: str = "",
    bias: bool = True,
    initialize: Callable[[Conv2d], None] = weight_init.c2_msra_fill,
    gain: float = 1.0,
) -> Conv2d:
    """A size-keeping convolution; with a normalisation it has no bias.

    Args:
        in_channels, out_channels, kernel_size: as of ``Conv2d``.
        norm: see ``detectron2.layers.get_norm``; ``GN`` has fewer than 32 groups where 32 do not
            divide the channels.
        bias: whether to have one if there is no normalisation.
        initialize: fills weight and bias.
        gain: factor on the initial scale of the output.
    """
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        bias=bias and not norm,
        norm=_get_norm(norm, out_channels),
    )
    initialize(conv)
    # A normalisation undoes the scale of what it normalises, but has one of its own.
    scale = conv.weight if conv.norm is None else conv.norm.weight
    with torch.no_grad():
        scale.mul_(gain)
    return conv


def _get_norm(name: str, channels: int) -> nn.Module | None:
    if name == "GN":
        return nn.GroupNorm(math.gcd(32, channels), channels)
    return get_norm(name, channels)
