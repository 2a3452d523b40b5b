import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock, build_resnet_backbone
from torch import nn

from efpn_d2.modeling import ExtendedResNet
from tests.modeling.helpers import tiny_config

pytestmark = pytest.mark.fast


def build(depth: int = 18, norm: str = "BN", groups: int = 1) -> tuple[ResNet, ExtendedResNet]:
    """A stock ResNet and, out of the same modules, an extended one."""
    cfg = tiny_config()
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.RESNETS.NUM_GROUPS = groups
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 64 if groups == 1 else 8
    torch.manual_seed(0)
    stock = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    for module in stock.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    return stock, ExtendedResNet.from_resnet(stock)


@pytest.mark.parametrize(
    ("depth", "norm", "groups"),
    [(18, "BN", 1), (34, "GN", 1), (50, "FrozenBN", 1), (101, "BN", 1), (50, "GN", 32)],
)
def test_stock_outputs_are_bitwise_equal_and_keys_the_same(depth, norm, groups):
    stock, extended = build(depth, norm, groups)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected, outputs = stock.eval()(x), extended.eval()(x)
    assert list(outputs) == [*expected, "c2_prime"]
    assert all(torch.equal(outputs[k], expected[k]) for k in expected)
    assert extended.state_dict().keys() == stock.state_dict().keys()
    for name, spec in extended.output_shape().items():
        assert outputs[name].shape == (2, spec.channels, 64 // spec.stride, 96 // spec.stride)


def test_c2_prime_is_stage_2_on_the_unpooled_stem_map():
    stock, extended = build()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        outputs = extended.eval()(x)
        unpooled = torch.relu(stock.stem.conv1(x))
        torch.testing.assert_close(outputs["c2_prime"], stock.res2(unpooled), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "GN"])
def test_c2_prime_is_the_same_whether_gradients_are_recorded_or_not(norm):
    _, extended = build(norm=norm)
    with torch.no_grad():
        for name, x in [*extended.res2.named_parameters(), *extended.res2.named_buffers()]:
            if x.is_floating_point():
                x.copy_(torch.rand_like(x) + 0.5 if "var" in name else torch.randn_like(x) / 4)
    stem_map = torch.randn(2, 64, 24, 16)
    recorded = extended.eval().c2_prime(stem_map)
    before = {k: v.clone() for k, v in extended.state_dict().items()}
    with torch.no_grad():
        folded = extended.c2_prime(stem_map)
    torch.testing.assert_close(folded, recorded, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in extended.state_dict().items())


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_c2_prime_leaves_and_uses_the_running_statistics(norm):
    stock, extended = build(norm="BN")
    if norm == "SyncBN":
        stock.res2 = nn.SyncBatchNorm.convert_sync_batchnorm(stock.res2)
        extended.res2 = extended.stages[0] = stock.res2
    extended.train()
    stem_map = torch.randn(1, 64, 32, 32)
    before = {k: v.clone() for k, v in extended.state_dict().items()}
    c2_prime = extended.c2_prime(stem_map)
    assert all(torch.equal(v, before[k]) for k, v in extended.state_dict().items())
    assert all(m.training for m in extended.modules()), "the training flags were not restored"
    extended.eval()
    assert torch.equal(c2_prime, extended.c2_prime(stem_map))


def test_training_updates_the_statistics_as_the_stock_network_does():
    (stock, _), (_, extended) = build(), build()
    x = torch.randn(2, 3, 64, 64)
    stock.train()(x)
    extended.train()(x)
    for name, value in stock.state_dict().items():
        assert torch.equal(extended.state_dict()[name], value), name


def test_the_training_flags_survive_an_error():
    _, extended = build()
    extended.train()
    with pytest.raises(RuntimeError):
        extended.c2_prime(torch.randn(1, 5, 8, 8))
    assert all(m.training for m in extended.modules())


def test_both_paths_reach_the_shared_weights():
    _, extended = build(norm="GN")
    x = torch.randn(1, 3, 64, 64)
    extended(x)["c2_prime"].sum().backward()
    through_c2_prime = extended.res2[0].conv1.weight.grad.abs().sum()
    assert through_c2_prime > 0
    assert extended.stem.conv1.weight.grad.abs().sum() > 0
    assert extended.res3[0].conv1.weight.grad is None


def test_res2_is_returned_even_if_only_higher_stages_are_asked_for():
    cfg = tiny_config()
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    stock = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    extended = ExtendedResNet.from_resnet(stock)
    assert list(extended.output_shape()) == ["res2", "res3", "res4", "res5", "c2_prime"]


class _StrideOneStem(BasicStem):
    def __init__(self) -> None:
        super().__init__()
        self.conv1.stride = (1, 1)
        self.stride = 2


class _PatchStem(nn.Module):
    stride, in_channels, out_channels = 4, 3, 64


@pytest.mark.parametrize("stem", [_StrideOneStem(), _PatchStem()])
def test_a_stem_without_a_stride_2_map_is_refused(stem):
    blocks = ResNet.make_stage(
        BottleneckBlock, 1, in_channels=64, out_channels=64, bottleneck_channels=16
    )
    with pytest.raises(ValueError, match="stride-2 convolution followed by a stride-2 max-pool"):
        ExtendedResNet(stem, [blocks], out_features=["res2"])


def test_a_stage_2_with_stride_is_refused():
    blocks = ResNet.make_stage(
        BottleneckBlock, 1, in_channels=64, out_channels=64, bottleneck_channels=16, stride=2
    )
    with pytest.raises(ValueError, match="res2 has stride 2"):
        ExtendedResNet(BasicStem(), [blocks], out_features=["res2"])


def test_a_classification_network_is_refused():
    blocks = ResNet.make_stage(
        BottleneckBlock, 1, in_channels=64, out_channels=64, bottleneck_channels=16
    )
    with pytest.raises(ValueError, match="classification layer"):
        ExtendedResNet.from_resnet(ResNet(BasicStem(), [blocks], num_classes=10))
    with pytest.raises(ValueError, match="classification layer"):
        ExtendedResNet(BasicStem(), [blocks], num_classes=10)
