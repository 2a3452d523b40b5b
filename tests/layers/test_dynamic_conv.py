import pytest
import torch
from torch.nn import functional as F

from efpn_d2.layers import (
    KernelGenerator,
    SharedAsymmetricKernels,
    depthwise_per_image,
    summed_depthwise_per_image,
)

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("size", [(6, 9), (1, 1)])
def test_each_image_and_channel_is_convolved_with_its_own_kernel(k, size):
    torch.manual_seed(0)
    x, kernels = torch.randn(2, 3, *size), torch.randn(2, 3, k, k)
    windows = F.unfold(x, k, padding=k // 2).reshape(2, 3, k * k, *size)
    expected = torch.einsum("nckhw,nck->nchw", windows, kernels.flatten(2))
    assert torch.allclose(depthwise_per_image(x, kernels), expected, atol=1e-5)
    total = expected.sum(dim=1, keepdim=True)
    assert torch.allclose(summed_depthwise_per_image(x, kernels), total, atol=1e-5)


def test_kernels_of_hand_made_values():
    x = torch.arange(6.0).reshape(1, 1, 2, 3).repeat(2, 1, 1, 1)
    kernels = torch.zeros(2, 1, 3, 3)
    kernels[0, 0, 1, 0] = 1  # reads the left neighbour
    kernels[1, 0, 0, 1] = 2  # reads the upper one, twice
    left = [[[0.0, 0, 1], [0, 3, 4]]]
    upper = [[[0.0, 0, 0], [0, 2, 4]]]
    assert depthwise_per_image(x, kernels).tolist() == [left, upper]


@pytest.mark.parametrize(
    ("convolve", "channels"), [(depthwise_per_image, 3), (summed_depthwise_per_image, 1)]
)
def test_an_empty_batch_gives_an_empty_result_and_a_gradient(convolve, channels):
    x = torch.zeros(0, 3, 4, 5, requires_grad=True)
    kernels = torch.zeros(0, 3, 3, 3, requires_grad=True)
    out = convolve(x, kernels)
    assert out.shape == (0, channels, 4, 5)
    out.sum().backward()
    assert x.grad is not None
    assert kernels.grad is not None


def test_generated_kernels_are_bounded_and_do_not_depend_on_the_scale_of_the_features():
    torch.manual_seed(0)
    generator = KernelGenerator(8, 3)
    x = 5 * torch.randn(2, 8, 12, 12) + 3
    kernels = generator(x)
    assert kernels.shape == (2, 8, 3, 3)
    assert kernels.abs().max() < 1
    assert torch.allclose(generator(100 * x), kernels, atol=1e-3)
    assert not torch.allclose(kernels[0], kernels[1], atol=0.01)


def test_generated_kernels_know_where_in_the_image_the_features_are():
    torch.manual_seed(0)
    generator = KernelGenerator(8, 3)
    x = torch.randn(1, 8, 12, 12)
    mirrored = x.flip(3)  # the global pool is the same
    assert not torch.allclose(generator(x), generator(mirrored), atol=0.01)


def test_kernels_that_start_at_zero_can_leave_it():
    generator = KernelGenerator(8, 3)
    generator.start_at_zero()
    kernels = generator(torch.randn(2, 8, 6, 6))
    assert not kernels.any()
    kernels.sum().backward()
    assert generator.channel[-1].weight.grad.any()


def test_static_kernels_are_mixed_from_a_row_a_column_and_a_square():
    static = SharedAsymmetricKernels(2, 3, shared=1)
    with torch.no_grad():
        static.row.copy_(torch.tensor([[[1.0, 2, 3]]]))
        static.column.copy_(torch.tensor([[[10.0], [20], [30]]]))
        static.square.fill_(100)
        static.mix.copy_(torch.tensor([[1.0, 1, 1], [0, 0, 2]]))
    first = [[100.0, 110, 100], [101, 122, 103], [100, 130, 100]]
    assert static().tolist() == [first, [[200.0] * 3] * 3]


def test_static_kernels_start_with_unit_gain():
    torch.manual_seed(0)
    energies = [SharedAsymmetricKernels(32, 5)().square().sum(dim=(1, 2)).mean() for _ in range(50)]
    assert torch.stack(energies).mean().item() == pytest.approx(1, abs=0.15)
