"""Depthwise convolution whose kernels are made from the input, for each image its own."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def depthwise_per_image(x: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each image with depthwise kernels of its own, keeping its size.

    Args:
        x: maps (N, C, H, W); N may be 0.
        kernels: (N, C, k, k) with odd k.

    Returns:
        (N, C, H, W).
    """
    n, c, h, w = x.shape
    if n == 0:
        # A convolution cannot have 0 groups; this keeps the kernels in the graph of gradients.
        return x * kernels.sum(dim=(2, 3), keepdim=True)
    k = kernels.shape[-1]
    # One group for each channel of each image: one convolution for the whole batch.
    out = F.conv2d(
        x.reshape(1, n * c, h, w), kernels.reshape(n * c, 1, k, k), padding=k // 2, groups=n * c
    )
    return out.reshape(n, c, h, w)


def summed_depthwise_per_image(x: Tensor, kernels: Tensor) -> Tensor:
    """The sum over the channels of :func:`depthwise_per_image`, without making its maps.

    Args:
        x: maps (N, C, H, W); N may be 0.
        kernels: (N, C, k, k) with odd k.

    Returns:
        (N, 1, H, W).
    """
    n, c, h, w = x.shape
    if n == 0:
        return depthwise_per_image(x, kernels).sum(dim=1, keepdim=True)
    out = F.conv2d(x.reshape(1, n * c, h, w), kernels, padding=kernels.shape[-1] // 2, groups=n)
    return out.reshape(n, 1, h, w)


class KernelGenerator(nn.Module):
    """Depthwise kernels from a map: a channel branch times a spatial branch.

    ``tanh(mlp(global_pool(x))) * tanh(conv(adaptive_pool(x, k)))``: what is in the image, and where
    in it. Both branches normalise what they pool, so that the kernels depend on the pattern of the
    features and not on their scale, which differs by far between stages and training recipes.
    """

    def __init__(self, channels: int, kernel_size: int, reduction: int = 4) -> None:
        """
        Args:
            channels: C.
            kernel_size: k, odd.
            reduction: the MLP's hidden layer has C / reduction channels.
        """
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.kernel_size = kernel_size
        self.channel = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def start_at_zero(self) -> None:
        """Make all kernels zero, but with a gradient: the channel branch's last layer is zeroed."""
        for parameter in self.channel[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, k, k), each value in (-1, 1)."""
        k = self.kernel_size
        what = x.mean(dim=(2, 3))
        what = self.channel(F.layer_norm(what, what.shape[1:]))
        where = F.adaptive_avg_pool2d(x, (k, k))
        where = self.spatial(F.layer_norm(where, where.shape[2:]))
        return torch.tanh(what)[:, :, None, None] * torch.tanh(where)


class SharedAsymmetricKernels(nn.Module):
    """Static depthwise kernels: each channel's mixture of 1xk, kx1 and kxk kernels all share."""

    def __init__(self, channels: int, kernel_size: int, shared: int = 4) -> None:
        """
        Args:
            channels: C.
            kernel_size: k, odd.
            shared: number of shared kernels of each of the three shapes.
        """
        super().__init__()
        k = kernel_size
        # A kernel's squares sum to 1 on average, and so do the assembled ones': unit gain.
        self.row = nn.Parameter(torch.randn(shared, 1, k) / k**0.5)
        self.column = nn.Parameter(torch.randn(shared, k, 1) / k**0.5)
        self.square = nn.Parameter(torch.randn(shared, k, k) / k)
        self.mix = nn.Parameter(torch.randn(channels, 3 * shared) / (3 * shared) ** 0.5)

    def forward(self) -> Tensor:
        """The assembled kernels (C, k, k); rows and columns lie in the middle."""
        k = self.square.shape[-1]
        middle = k // 2
        row = F.pad(self.row, [0, 0, middle, middle])
        column = F.pad(self.column, [middle, middle])
        shared = torch.cat([row, column, self.square])
        return (self.mix @ shared.flatten(1)).reshape(-1, k, k)
