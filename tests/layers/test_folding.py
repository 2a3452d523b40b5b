import pytest
import torch
from detectron2.layers import Conv2d, get_norm
from torch import nn

from efpn_d2.layers import fold_normalizations, is_recorded

pytestmark = pytest.mark.fast


def normalized_conv(norm: str, groups: int = 1, bias: bool = False) -> Conv2d:
    """With a normalisation that has seen something."""
    conv = Conv2d(4, 8, 3, padding=1, groups=groups, bias=bias, norm=get_norm(norm, 8))
    with torch.no_grad():
        for name, x in [*conv.norm.named_parameters(), *conv.norm.named_buffers()]:
            if x.is_floating_point():
                x.copy_(torch.rand_like(x) + 0.5 if "var" in name else torch.randn_like(x))
    return conv.eval()


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_a_folded_convolution_computes_the_same(norm, groups, bias):
    module = nn.Sequential(normalized_conv(norm, groups, bias), nn.ReLU())
    folded = fold_normalizations(module)
    assert folded[0].norm is None
    x = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(folded(x), module(x), rtol=1e-5, atol=1e-5)


def test_the_module_itself_stays_as_it_is():
    module = nn.Sequential(normalized_conv("BN"), Conv2d(8, 8, 1))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    folded = fold_normalizations(module)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert module[0].norm is not None
    assert folded[1].weight is module[1].weight, "what is not folded should be shared"


def test_what_depends_on_the_image_stays():
    module = nn.Sequential(Conv2d(4, 32, 1, norm=get_norm("GN", 32)))
    assert isinstance(fold_normalizations(module)[0].norm, nn.GroupNorm)


def test_a_norm_without_running_statistics_stays():
    conv = Conv2d(4, 8, 1, norm=nn.BatchNorm2d(8, track_running_stats=False))
    assert fold_normalizations(nn.Sequential(conv))[0].norm is not None


def test_what_records():
    assert is_recorded()
    with torch.no_grad():
        assert not is_recorded()
        traced = []
        torch.jit.trace(lambda x: (traced.append(is_recorded()), x + 1)[1], torch.zeros(1))
        assert traced[0]
    with torch.inference_mode():
        assert not is_recorded()
