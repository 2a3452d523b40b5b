"""Residual blocks of FTT's content and texture extractors."""

from torch import Tensor, nn
from torch.nn import functional as F

from efpn_d2.layers.conv import conv_layer

# Residual branches start at a tenth of Kaiming's scale. Without normalization each branch at full
# scale would double the variance, which made a training from scratch diverge.
BRANCH_GAIN = 0.1


class ResidualBlock(nn.Module):
    """``x + conv3x3(relu(conv3x3(x)))``: (N, C, H, W) -> (N, C, H, W).

    Unlike Detectron2's ``BasicBlock``, it has no normalization by default and no final ReLU, as is
    common in super-resolution.
    """

    def __init__(self, channels: int, *, norm: str = "", relu_after_add: bool = False) -> None:
        """
        Args:
            channels: C.
            norm: normalization after each convolution, see ``detectron2.layers.get_norm``.
            relu_after_add: apply a final ReLU, as the ``reference`` preset does.
        """
        super().__init__()
        self.conv1 = conv_layer(channels, channels, 3, norm=norm)
        self.conv2 = conv_layer(channels, channels, 3, norm=norm, gain=BRANCH_GAIN)
        self.relu_after_add = relu_after_add

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, C, H, W) to (N, C, H, W)."""
        out = x + self.conv2(F.relu_(self.conv1(x)))
        return F.relu_(out) if self.relu_after_add else out
