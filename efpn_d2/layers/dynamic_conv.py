"""Dynamic depthwise convolution: the kernels are generated from the input, per image."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def depthwise_per_image(x: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each image with its own depthwise kernels, preserving the size.

    Args:
        x: features (N, C, H, W); N may be 0.
        kernels: (N, C, k, k) with odd k.

    Returns:
        (N, C, H, W).
    """
    n, c, h, w = x.shape
    if n == 0:
        # A convolution cannot have 0 groups; this keeps the kernels in the autograd graph.
        return x * kernels.sum(dim=(2, 3), keepdim=True)
    k = kernels.shape[-1]
    # One group per channel of each image: a single convolution for the whole batch.
    out = F.conv2d(
        x.reshape(1, n * c, h, w), kernels.reshape(n * c, 1, k, k), padding=k // 2, groups=n * c
    )
    return out.reshape(n, c, h, w)


def summed_depthwise_per_image(x: Tensor, kernels: Tensor) -> Tensor:
    """Compute :func:`depthwise_per_image` summed over channels, without storing its output.

    Args:
        x: features (N, C, H, W); N may be 0.
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
    """Generate depthwise kernels from features: a channel branch times a spatial branch.

    The kernels are ``tanh(mlp(global_pool(x))) * tanh(conv(adaptive_pool(x, k)))``. Both branches
    normalize the pooled features, so that the kernels depend on their pattern and not on their
    scale, which differs greatly between stages and training recipes.
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
        """Initialize the last layer of the channel branch to zero, so that all kernels are zero."""
        for parameter in self.channel[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, C, H, W) to kernels (N, C, k, k) with values in (-1, 1)."""
        k = self.kernel_size
        what = x.mean(dim=(2, 3))
        what = self.channel(F.layer_norm(what, what.shape[1:]))
        where = F.adaptive_avg_pool2d(x, (k, k))
        where = self.spatial(F.layer_norm(where, where.shape[2:]))
        return torch.tanh(what)[:, :, None, None] * torch.tanh(where)


class SharedAsymmetricKernels(nn.Module):
    """Static depthwise kernels: per-channel mixtures of shared 1xk, kx1 and kxk kernels."""

    def __init__(self, channels: int, kernel_size: int, shared: int = 4) -> None:
        """
        Args:
            channels: C.
            kernel_size: k, odd.
            shared: number of shared kernels of each of the three shapes.
        """
        super().__init__()
        k = kernel_size
        # The squares of a kernel sum to 1 on average, for shared and assembled kernels: unit gain.
        self.row = nn.Parameter(torch.randn(shared, 1, k) / k**0.5)
        self.column = nn.Parameter(torch.randn(shared, k, 1) / k**0.5)
        self.square = nn.Parameter(torch.randn(shared, k, k) / k)
        self.mix = nn.Parameter(torch.randn(channels, 3 * shared) / (3 * shared) ** 0.5)

    def forward(self) -> Tensor:
        """Assemble the kernels (C, k, k); rows and columns are centered."""
        k = self.square.shape[-1]
        middle = k // 2
        row = F.pad(self.row, [0, 0, middle, middle])
        column = F.pad(self.column, [middle, middle])
        shared = torch.cat([row, column, self.square])
        return (self.mix @ shared.flatten(1)).reshape(-1, k, k)
