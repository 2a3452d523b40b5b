import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import nn

from efpn_d2.modeling.backbone import ExtendedResNet, PyramidExtension
from efpn_d2.modeling.lazy.profile import profile_extension, profile_step
from tests.modeling.helpers import tiny_config

pytestmark = pytest.mark.fast


def profile(module, channels=(2,), scale=1):
    return profile_step(module, lambda m, *x: m(*x), list(channels), scale=scale)


@pytest.mark.parametrize(
    ("kernels", "dilation", "halo"),
    [((1,), 1, 0), ((3,), 1, 1), ((3, 5), 1, 3), ((3, 3), 2, 4), ((3,) * 12, 1, 12)],
)
def test_halo_and_cost_of_a_chain_of_convolutions(kernels, dilation, halo):
    convs = [nn.Conv2d(2, 2, k, padding=dilation * (k // 2), dilation=dilation) for k in kernels]
    found = profile(nn.Sequential(*convs))
    assert found.halo == halo
    assert found.macs == sum(4 * k * k for k in kernels)


def test_weights_do_not_matter():
    conv = nn.Conv2d(2, 2, 5, padding=2)
    nn.init.zeros_(conv.weight)
    assert profile(nn.Sequential(conv, nn.ReLU())).halo == 2


def test_a_lopsided_kernel_counts_by_its_longer_side():
    conv = nn.Sequential(nn.ZeroPad2d((3, 0, 1, 1)), nn.Conv2d(2, 2, (3, 4)))
    assert profile(conv).halo == 3


def test_halos_of_upsampling_steps_are_in_cells_of_the_input():
    shuffle = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.PixelShuffle(2))
    assert profile(shuffle, scale=2) == ((1,), 2 * 8 * 9)
    after = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3, padding=1))
    assert profile(after, scale=2) == ((1,), 4 * 2 * 2 * 9)


@pytest.mark.parametrize("whole", [nn.GroupNorm(1, 2), nn.AdaptiveAvgPool2d(1)])
def test_a_module_that_reads_everything_has_no_halo(whole):
    class Gate(nn.Module):
        def forward(self, x):
            return x * whole.double()(x)

    assert profile(Gate()) is None


def test_what_depends_on_the_position_cannot_be_computed_in_tiles():
    class Ramp(nn.Module):
        def forward(self, x):
            return x + torch.arange(x.shape[-1])

    assert profile(Ramp()) is None
    aligned = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    assert profile(aligned, scale=2) is None
    assert profile(nn.Upsample(scale_factor=2, mode="bilinear"), scale=2).halo == 1


def test_halos_of_the_paper_counted_by_hand():
    """Residual blocks reach 2 cells each, ResNet-18's stage 2 has two, ResNet-50's three 3x3."""
    for depth, halo in ((18, 4), (50, 3)):
        cfg = tiny_config()
        cfg.MODEL.RESNETS.DEPTH = depth
        resnet = ExtendedResNet.from_resnet(build_resnet_backbone(cfg, ShapeSpec(channels=3)))
        c2 = resnet.output_shape()["res2"].channels
        extension = PyramidExtension(c2, 8)
        found = profile_extension(resnet.stages[0], extension)
        assert found.stage2.halo == halo
        assert found.content.halo == 2 + 2 + 1
        assert found.transfer.halo == 1 + 2 + 2
        # P'3 is twice as coarse: the convolution's cell belongs to a neighbour two cells wide.
        assert found.output.halos == (1, 2)
        assert found.content.macs == 8 * 8 * 9 * 4 + 8 * 32 * 9
        assert found.transfer.macs == 16 * 8 * 9 + 8 * 8 * 9 * 4
        assert found.output.macs == c2 * 8 + 8 * 8 * 9


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)).train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    profile(module)
    assert module.training
    assert next(module.parameters()).dtype == torch.float32
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert not module[0]._forward_hooks
