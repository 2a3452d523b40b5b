"""Residual blocks of FTT's content and texture extractors."""

from torch import Tensor, nn
from torch.nn import functional as F

from efpn_d2.layers.conv import conv_layer

# Residual branches start at a tenth of Kaiming's scale. Without normalisation each full-scale
# branch would double the variance, with which a training from scratch diverged.
BRANCH_GAIN = 0.1


class ResidualBlock(nn.Module):
    """``x + conv3x3(relu(conv3x3(x)))``: (N, C, H, W) -> (N, C, H, W).

    Detectron2's ``BasicBlock`` always normalises and always ends in a ReLU; super-resolution blocks
    do neither.
    """

    def __init__(self, channels: int, *, norm: str = "", relu_after_add: bool = False) -> None:
        """
        Args:
            channels: C.
            norm: normalisation after each convolution, see ``detectron2.layers.get_norm``.
            relu_after_add: end in a ReLU, as the ``reference`` preset does.
        """
        super().__init__()
        self.conv1 = conv_layer(channels, channels, 3, norm=norm)
        self.conv2 = conv_layer(channels, channels, 3, norm=norm, gain=BRANCH_GAIN)
        self.relu_after_add = relu_after_add

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        out = x + self.conv2(F.relu_(self.conv1(x)))
        return F.relu_(out) if self.relu_after_add else out
