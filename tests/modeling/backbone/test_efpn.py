import detectron2.export.torchscript_patch  # noqa: F401  makes stock backbones scriptable
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn
from torch.nn import functional as F

from efpn_d2.modeling import EFPN, NearestUpsample, PyramidExtension
from tests.modeling.helpers import tiny_config

pytestmark = pytest.mark.fast

RETINANET = "COCO-Detection/retinanet_R_50_EFPN_1x.yaml"
TWO_STAGE = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"


def build_pair(name: str = TWO_STAGE, **options: object) -> tuple[FPN, EFPN]:
    """A stock FPN and an EFPN with its weights, in evaluation mode."""
    cfg = tiny_config(name)
    cfg.merge_from_list([x for pair in options.items() for x in pair])
    torch.manual_seed(0)
    efpn = build_backbone(cfg).eval()
    cfg.MODEL.BACKBONE.NAME = cfg.MODEL.BACKBONE.NAME.replace("efpn", "fpn")
    stock = build_backbone(cfg).eval()
    missing, unexpected = efpn.load_state_dict(stock.state_dict(), strict=False)
    assert unexpected == []
    assert missing
    assert all(k.startswith("extension.") for k in missing)
    return stock, efpn


@pytest.mark.parametrize("name", [TWO_STAGE, RETINANET])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"MODEL.FPN.FUSE_TYPE": "avg"},
        {"MODEL.FPN.NORM": "GN", "MODEL.FPN.OUT_CHANNELS": 32},
        {"MODEL.EFPN.PRESET": "reference"},
        {"MODEL.EFPN.PRESET": "slim"},
        {"MODEL.EFPN.PRESET": "slim", "MODEL.EFPN.TEXTURE": "none"},
        {"MODEL.EFPN.UPSAMPLER": "espcn"},
        {"MODEL.EFPN.UPSAMPLER": "nearest"},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "default",
)
def test_stock_levels_are_bitwise_equal_to_fpn(name, options):
    stock, efpn = build_pair(name, **options)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected, outputs = stock(images), efpn(images)
    texture = ["stem_map"] if efpn.texture == "stem_map" else []
    assert list(outputs) == ["p2_prime", *expected, *texture]
    assert all(torch.equal(outputs[k], expected[k]) for k in expected)
    assert list(efpn.output_shape()) == list(outputs)
    for level, spec in efpn.output_shape().items():
        height, width = (-(-side // spec.stride) for side in (64, 96))
        assert outputs[level].shape == (2, spec.channels, height, width)


def test_the_extension_is_the_only_new_child():
    stock, efpn = build_pair()
    new = {k for k, _ in efpn.named_children()} - {k for k, _ in stock.named_children()}
    assert new == {"extension"}


def test_eq_1_from_the_maps_of_the_stock_pyramid():
    _, efpn = build_pair()
    images = torch.randn(1, 3, 64, 64)
    output_inputs: dict[str, torch.Tensor] = {}
    for stage in (2, 3):
        getattr(efpn, f"fpn_output{stage}").register_forward_pre_hook(
            lambda _, args, stage=stage: output_inputs.update({f"merged{stage}": args[0]})
        )
    with torch.no_grad():
        p2_prime = efpn(images)["p2_prime"]
        c2_prime = efpn.bottom_up(images)["c2_prime"]
        part = efpn.extension
        p3_prime = part.upsampler(output_inputs["merged3"], output_inputs["merged2"])
        up = p3_prime.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        lateral = F.conv2d(c2_prime, part.lateral.weight, part.lateral.bias)
        expected = F.conv2d(lateral + up, part.output.weight, part.output.bias, padding=1)
    assert torch.allclose(p2_prime, expected, atol=1e-5)


def test_average_fusion_halves_the_sum():
    torch.manual_seed(0)
    summed = PyramidExtension(4, 4, upsampler=NearestUpsample)
    averaged = PyramidExtension(4, 4, upsampler=NearestUpsample, fuse_type="avg")
    averaged.load_state_dict(summed.state_dict())
    for module in (summed, averaged):
        nn.init.zeros_(module.lateral.bias)
        nn.init.zeros_(module.output.bias)
    maps = torch.randn(1, 4, 16, 16), torch.randn(1, 4, 8, 8), torch.randn(1, 4, 4, 4)
    assert torch.allclose(averaged(*maps)[1], summed(*maps)[1] / 2, atol=1e-6)


def test_the_level_2_of_a_pyramid_without_one_is_its_own_lateral_and_top_down_sum():
    torch.manual_seed(0)
    extension = PyramidExtension(6, 4, own_level2=True)
    with_level2 = PyramidExtension(6, 4)
    state = extension.state_dict()
    own = [state.pop(f"level2_lateral.{k}") for k in ("weight", "bias")]
    with_level2.load_state_dict(state)
    c2_prime, c2, merged3 = (torch.randn(1, c, s, s) for c, s in ((6, 16), (6, 8), (4, 4)))
    merged2 = F.conv2d(c2, *own) + merged3.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = with_level2(c2_prime, merged2, merged3)
    for value, other in zip(extension(c2_prime, c2, merged3), expected, strict=True):
        assert torch.allclose(value, other, atol=1e-6)


@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_every_parameter_of_the_extension_gets_a_gradient(preset):
    torch.manual_seed(0)
    extension = PyramidExtension(8, 8, preset=preset, own_level2=True)
    maps = torch.randn(1, 8, 16, 16), torch.randn(1, 8, 8, 8), torch.randn(1, 8, 4, 4)
    p3_prime, p2_prime = extension(*maps)
    assert p3_prime.shape == maps[1].shape
    assert p2_prime.shape == maps[0].shape
    p2_prime.square().mean().backward()
    assert [k for k, p in extension.named_parameters() if not p.grad.any()] == []


def test_reference_preset_has_no_bias_around_p2_prime():
    extension = PyramidExtension(8, 8, preset="reference")
    assert extension.lateral.bias is None
    assert extension.output.bias is None


def test_retinanet_pyramid_may_have_a_level_2_of_its_own():
    stock, efpn = build_pair(
        RETINANET, **{"MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
                      "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"]}
    )  # fmt: skip
    assert list(efpn.output_shape()) == ["p2_prime", "p2", "p3", "p4", "p5", "p6", "p7"]
    assert efpn.extension.level2_lateral is None


def test_maps_stay_channels_last():
    _, efpn = build_pair()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = efpn(images)
        outputs = efpn.to(memory_format=torch.channels_last)(images)
    for name, own in outputs.items():
        assert own.is_contiguous(memory_format=torch.channels_last), name
        torch.testing.assert_close(own, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [TWO_STAGE, RETINANET])
@pytest.mark.parametrize("preset", ["paper", "reference", "slim"])
def test_scripted_pyramid_equals_the_eager_one(name, preset):
    _, efpn = build_pair(name, **{"MODEL.EFPN.PRESET": preset})
    scripted = torch.jit.script(efpn)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, outputs = efpn(images), scripted(images)
    assert list(outputs) == list(expected)
    for name, own in expected.items():
        torch.testing.assert_close(outputs[name], own, rtol=1e-4, atol=1e-5)


def test_compiled_extension_equals_the_plain_one_at_any_size():
    _, plain = build_pair()
    _, compiled = build_pair(**{"MODEL.EFPN.COMPILE": "aot_eager"})
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert compiled.extension._compiled_call_impl is not None
    for height, width in ((64, 64), (96, 128)):
        images = torch.randn(1, 3, height, width)
        with torch.no_grad():
            expected, outputs = plain(images), compiled(images)
        torch.testing.assert_close(outputs["p2_prime"], expected["p2_prime"])
    compiled.train()(torch.randn(1, 3, 64, 64))["p2_prime"].mean().backward()
    assert all(p.grad is not None for p in compiled.extension.parameters())


def test_built_without_a_config():
    bottom_up = build_pair()[1].bottom_up
    efpn = EFPN(bottom_up, ["res2", "res3"], 8, top_block=None)
    assert list(efpn(torch.randn(1, 3, 32, 32))) == ["p2_prime", "p2", "p3"]
    assert isinstance(efpn.extension, PyramidExtension)


@pytest.mark.parametrize("in_features", [["res2", "res3"], ["res3"]])
def test_an_extension_for_another_pyramid_is_refused(in_features):
    bottom_up = build_pair()[1].bottom_up
    extension = PyramidExtension(64, 8, own_level2=in_features[0] == "res2")
    with pytest.raises(ValueError, match="must be built with own_level2="):
        EFPN(bottom_up, in_features, 8, extension=extension)


def test_a_detector_whose_proposals_come_from_elsewhere_is_built():
    cfg = tiny_config()
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    cfg.MODEL.RPN.IN_FEATURES = ["res4"]
    assert "p2_prime" in build_backbone(cfg).output_shape()


@pytest.mark.parametrize("heads", ["StandardROIHeads", "CascadeROIHeads"])
def test_heads_that_do_not_read_p2_prime_are_warned_of(heads, caplog):
    cfg = tiny_config()
    cfg.MODEL.ROI_HEADS.NAME = heads
    build_backbone(cfg)
    ours = {"StandardROIHeads": "EFPNROIHeads", "CascadeROIHeads": "EFPNCascadeROIHeads"}[heads]
    assert f"MODEL.ROI_HEADS.NAME is {heads}, which ignores P'2: set it to {ours}" in caplog.text


def test_a_bottom_up_network_without_a_texture_is_refused():
    stock, _ = build_pair()
    with pytest.raises(ValueError, match="c2_prime or stem_map and res2"):
        EFPN(stock.bottom_up, ["res2", "res3"], 8)


class Outputs(Backbone):
    """A network that says what it returns."""

    def __init__(self, **strides):
        super().__init__()
        self._shapes = {name: ShapeSpec(channels=8, stride=s) for name, s in strides.items()}

    def forward(self, x):
        raise NotImplementedError

    def output_shape(self):
        return self._shapes


STAGES = {f"res{level}": 2**level for level in range(2, 6)}


@pytest.mark.parametrize(
    ("bottom_up", "message"),
    [
        (nn.Conv2d(3, 8, 3), "a Conv2d, .*Backbone"),
        (Outputs(stem_map=2, res3=8), "returns stem_map, res3, but .* and res2"),
        (Outputs(stem_map=4, **STAGES), "stem_map has stride 4, .* res2, which is 4"),
    ],
)
def test_a_network_that_is_not_extended_is_refused(bottom_up, message):
    with pytest.raises(ValueError, match=message) as error:
        EFPN(bottom_up, list(STAGES), 8)
    assert "\n" not in str(error.value)


def test_of_two_textures_the_named_one_is_read():
    both = Outputs(c2_prime=2, stem_map=2, **STAGES)
    assert EFPN(both, list(STAGES), 8).texture == "c2_prime"
    assert EFPN(both, list(STAGES), 8, texture="stem_map").texture == "stem_map"
    without = PyramidExtension(8, 8, texture_channels=0)
    assert EFPN(both, list(STAGES), 8, extension=without).texture == "none"


@pytest.mark.parametrize("in_features", [["res4", "res5"], ["res2"]])
def test_a_pyramid_without_level_3_is_refused(in_features):
    bottom_up = build_pair()[1].bottom_up
    with pytest.raises(ValueError, match="MODEL.FPN.IN_FEATURES is .* begin it with res2, res3"):
        EFPN(bottom_up, in_features, 8, top_block=LastLevelMaxPool())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.EFPN.PRESET", "best", "MODEL.EFPN.PRESET is 'best'"),
        ("MODEL.EFPN.UPSAMPLER", "bicubic", "MODEL.EFPN.UPSAMPLER is 'bicubic'"),
        ("MODEL.RPN.IN_FEATURES", ["p1", "p2"], "MODEL.RPN.IN_FEATURES reads p1"),
    ],
)
def test_config_mistakes_are_one_clear_sentence(key, value, message):
    cfg = tiny_config()
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message) as error:
        build_backbone(cfg, ShapeSpec(channels=3))
    assert "\n" not in str(error.value)
