import pytest
import torch
from torch.nn import functional as F

from efpn_d2.layers import SubPixelUpsample, eq4_permutation, nearest_up2

pytestmark = pytest.mark.fast


def pixel_shuffle_eq4(features: torch.Tensor, factor: int) -> torch.Tensor:
    """Eq. 4 cell by cell: (C r^2, H, W) -> (C, rH, rW), x the row and y the column."""
    channels = features.shape[0] // factor**2
    height, width = features.shape[1] * factor, features.shape[2] * factor
    out = torch.empty(channels, height, width)
    for x in range(height):
        for y in range(width):
            for c in range(channels):
                source = channels * factor * (y % factor) + channels * (x % factor) + c
                out[c, x, y] = features[source, x // factor, y // factor]
    return out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [2, 3])
def test_permutation_turns_pixel_shuffle_into_eq4(channels, factor):
    features = torch.randn(channels * factor**2, 4, 5)
    permuted = features[eq4_permutation(channels, factor)]
    expected = pixel_shuffle_eq4(features, factor)
    assert torch.equal(F.pixel_shuffle(permuted, factor), expected)
    if channels > 1:
        assert not torch.equal(F.pixel_shuffle(features, factor), expected)


def test_permuted_filters_give_the_same_function_as_eq4():
    module = SubPixelUpsample(3, 2)
    torch.nn.init.normal_(module.conv.weight)
    x = torch.randn(1, 3, 4, 4)
    order = eq4_permutation(2, 2)
    eq4_weight = torch.empty_like(module.conv.weight)
    eq4_weight[order] = module.conv.weight.detach()
    eq4_features = F.conv2d(x, eq4_weight, padding=1)
    assert torch.allclose(module(x)[0], pixel_shuffle_eq4(eq4_features[0], 2), atol=1e-6)


def test_starts_as_convolution_and_nearest_upsampling():
    module = SubPixelUpsample(3, 5)
    x = torch.randn(2, 3, 6, 7)
    one_of_four = F.conv2d(x, module.conv.weight[::4], padding=1)
    assert module(x).shape == (2, 5, 12, 14)
    assert torch.allclose(module(x), nearest_up2(one_of_four), atol=1e-6)


def test_with_equal_channels_it_starts_as_nearest_upsampling():
    x = torch.randn(2, 4, 3, 5)
    assert torch.allclose(SubPixelUpsample(4, 4)(x), nearest_up2(x), atol=1e-6)


def test_nearest_up2_repeats_each_cell():
    x = torch.tensor([[[[1.0, 2.0]]]])
    assert nearest_up2(x).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]
