import pytest
import torch
from torch import nn

from efpn_d2.layers import ResidualBlock, conv_layer

pytestmark = pytest.mark.fast


def fill(module: nn.Module, weight: float, bias: float = 0.0) -> None:
    """Every convolution becomes: weight at the centre of the kernel, elsewhere 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
            layer.weight.data[:, :, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = weight
            if layer.bias is not None:
                nn.init.constant_(layer.bias, bias)


@pytest.mark.parametrize(
    ("relu_after_add", "expected"),
    # conv1: 3x - 1 -> 5, -7; ReLU -> 5, 0; conv2: 3h - 1 -> 14, -1; plus x.
    [(False, [16.0, -3.0]), (True, [16.0, 0.0])],
)
def test_residual_block_by_hand(relu_after_add, expected):
    block = ResidualBlock(1, relu_after_add=relu_after_add)
    fill(block, 3.0, -1.0)
    assert block(torch.tensor([2.0, -2.0]).view(1, 1, 1, 2)).flatten().tolist() == expected


@pytest.mark.parametrize("norm", ["GN", "BN"])
def test_a_normalised_convolution_has_no_bias(norm):
    conv = conv_layer(32, 32, 3, norm=norm)
    assert conv.bias is None
    assert conv.norm is not None


def test_the_input_is_not_changed_in_place():
    x = torch.randn(1, 4, 5, 5)
    before = x.clone()
    ResidualBlock(4)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("norm", ["", "GN"])
def test_residual_branches_start_small(norm):
    torch.manual_seed(0)
    x = torch.randn(2, 128, 8, 8)
    with torch.no_grad():
        branch = ResidualBlock(128, norm=norm)(x) - x
    assert 0.01 < branch.std() < 0.3
