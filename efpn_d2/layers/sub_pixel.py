"""Sub-pixel convolution: the up-sampling of FTT and of ESPCN (paper Eq. 4)."""

import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F


def nearest_up2(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W) by nearest neighbours, as in FPN's top-down pathway."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def eq4_permutation(channels: int, factor: int) -> Tensor:
    """Channel order that turns ``torch.nn.PixelShuffle`` into the paper's Eq. 4.

    Eq. 4 reads output cell (row x, column y, channel c) from input channel
    ``C * r * mod(y, r) + C * mod(x, r) + c``, PyTorch from ``c * r^2 + r * mod(x, r) + mod(y, r)``.
    The two differ by a permutation of the filters of the convolution before the shuffle, so the
    class of functions is the same and the package uses PyTorch's operator.

    Args:
        channels: C, channels after the shuffle.
        factor: r, the up-sampling factor.

    Returns:
        LongTensor of shape (C * r^2,): ``pixel_shuffle(f[:, p], r)`` equals Eq. 4 applied to ``f``.
    """
    index = torch.arange(channels * factor**2)
    # Eq. 4 orders the input channels as (mod y, mod x, c), PyTorch as (c, mod x, mod y).
    return index.view(factor, factor, channels).permute(2, 1, 0).reshape(-1)


class SubPixelUpsample(nn.Module):
    """3x3 convolution C_in -> 4 C_out followed by a pixel shuffle of factor 2 (paper Eq. 4).

    The four filters behind one output channel start equal, so that there are no checkerboard
    artefacts; with C_in = C_out they start as the identity, so that the module starts as
    nearest-neighbour up-sampling. [ours]
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """
        Args:
            in_channels: C_in.
            out_channels: C_out.
        """
        super().__init__()
        self.shuffle = nn.PixelShuffle(2)
        filters_each = self.shuffle.upscale_factor**2
        self.conv = Conv2d(in_channels, out_channels * filters_each, kernel_size=3, padding=1)
        with torch.no_grad():
            one_filter_each = self.conv.weight.new_empty(out_channels, *self.conv.weight.shape[1:])
            if in_channels == out_channels:
                nn.init.dirac_(one_filter_each)
            else:
                nn.init.kaiming_normal_(one_filter_each, nonlinearity="linear")
            self.conv.weight.copy_(one_filter_each.repeat_interleave(filters_each, dim=0))
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, 2H, 2W)."""
        return self.shuffle(self.conv(x))
