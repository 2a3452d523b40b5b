"""The preset slim: a P'2 of fewer channels, with heads of its own."""

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn import functional as F

from efpn_d2.checkpoint import EFPNCheckpointer
from efpn_d2.modeling import EFPN, ExtendedResNet, PyramidExtension, build_efpn
from tests.modeling.helpers import tiny_config, training_input, without_gradient
from tests.modeling.test_drop_in import stock_config

pytestmark = pytest.mark.fast

FASTER = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_EFPN_1x.yaml"
MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_EFPN_1x.yaml"
CASCADE_MASK = "COCO-InstanceSegmentation/cascade_mask_rcnn_R_50_EFPN_3x.yaml"
CONFIGS = [FASTER, MASK, CASCADE_MASK, RETINANET]
CHANNELS, SLIM = 16, 4
BOXES = [[4, 4, 12, 14], [30, 20, 37, 30], [10, 10, 90, 60]]


def slim_config(name: str = FASTER, **options: object):
    cfg = tiny_config(name)
    cfg.MODEL.EFPN.PRESET = "slim"
    cfg.MODEL.EFPN.RPN_ON_P2_PRIME = True
    cfg.MODEL.EFPN.SMALL_BOX_SIZE = 32.0
    cfg.MODEL.EFPN.P2_PRIME_CHANNELS = SLIM
    cfg.merge_from_list([x for pair in options.items() for x in pair])
    return cfg


def build(name: str = FASTER, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return build_model(slim_config(name, **options))


def losses(model: nn.Module) -> dict[str, torch.Tensor]:
    with EventStorage():
        return model.train()([training_input(BOXES), training_input([])])


def test_p2_prime_has_3_of_16_of_the_channels_and_takes_any_norm():
    extension = PyramidExtension(256, 256, texture_channels=64, preset="slim", norm="GN")
    texture, merged2 = torch.rand(1, 64, 32, 32), torch.rand(1, 256, 16, 16)
    p3_prime, p2_prime = extension(texture, merged2, torch.rand(1, 256, 8, 8))
    assert p3_prime.shape == (1, 48, 16, 16)
    assert p2_prime.shape == (1, 48, 32, 32)
    assert extension.lateral.norm.num_groups == 16


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("texture", ["auto", "c2_prime", "none"])
def test_every_part_is_trained_and_the_losses_are_finite(name, texture):
    model = build(name, **{"MODEL.EFPN.TEXTURE": texture})
    found = losses(model)
    assert all(torch.isfinite(x) for x in found.values())
    sum(found.values()).backward()
    assert without_gradient(model) == []


def test_p2_prime_by_hand():
    torch.manual_seed(0)
    extension = PyramidExtension(
        6, CHANNELS, texture_channels=5, p2_prime_channels=SLIM, preset="slim"
    )
    stem_map, level2, level3 = (
        torch.randn(1, c, s, s) for c, s in ((5, 16), (CHANNELS, 8), (CHANNELS, 4))
    )
    narrow2, narrow3 = extension.reduce2(level2), extension.reduce3(level3)
    assert narrow2.shape[1] == narrow3.shape[1] == SLIM
    p3_prime = extension.upsampler(narrow3, narrow2)
    up = p3_prime.repeat_interleave(2, 2).repeat_interleave(2, 3)
    lateral = F.conv2d(stem_map, extension.lateral.weight, extension.lateral.bias)
    expected = F.conv2d(lateral + up, extension.output.weight, extension.output.bias, padding=1)
    found = extension(stem_map, level2, level3)
    torch.testing.assert_close(found[0], p3_prime)
    torch.testing.assert_close(found[1], expected)


@pytest.mark.parametrize(("texture", "runs"), [("auto", 1), ("none", 1), ("c2_prime", 2)])
def test_stage_2_runs_again_for_c2_prime_only(texture, runs):
    model = build(**{"MODEL.EFPN.TEXTURE": texture}).eval()
    calls = []
    model.backbone.bottom_up.stages[0].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        features = model.backbone(torch.randn(1, 3, 64, 64))
    assert len(calls) == runs
    assert features["p2_prime"].shape == (1, SLIM, 32, 32)


def test_texture_changes_p2_prime_alone():
    model = build().eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model.backbone(image)
        model.backbone.extension.lateral.weight.mul_(2)
        after = model.backbone(image)
    assert [k for k in before if not torch.equal(before[k], after[k])] == ["p2_prime"]


def test_the_stock_rpn_head_reads_the_stock_levels_and_the_small_one_p2_prime():
    head = build(**{"MODEL.EFPN.P2_PRIME_ANCHOR_SIZES": [4, 8]}).proposal_generator.rpn_head
    small, stock = (
        StandardRPNHead(in_channels=SLIM, num_anchors=6),
        StandardRPNHead(in_channels=CHANNELS, num_anchors=3),
    )
    state = head.state_dict()
    prefix = "small_head."
    small.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if prefix in k})
    stock.load_state_dict({k: v for k, v in state.items() if prefix not in k})
    p2_prime, *others = [torch.randn(2, c, 8, 8) for c in (SLIM, CHANNELS, CHANNELS)]
    with torch.no_grad():
        found = head([p2_prime, *others])
        for own, first, rest in zip(found, small([p2_prime]), stock(others), strict=True):
            assert len(own) == 3
            for x, y in zip(own, [*first, *rest], strict=True):
                assert torch.equal(x, y)


def test_the_small_retinanet_head_reads_p2_prime():
    model = build(RETINANET)
    assert type(model.head.small_head) is RetinaNetHead
    assert model.head.small_head.cls_subnet[0].in_channels == SLIM
    assert model.head.cls_subnet[0].in_channels == CHANNELS
    features = [torch.randn(1, c, 8, 8) for c in (SLIM, *5 * [CHANNELS])]
    with torch.no_grad():
        logits, deltas = model.head(features)
        expected = model.head.small_head(features[:1])
    assert torch.equal(logits[0], expected[0][0]) and torch.equal(deltas[0], expected[1][0])
    assert len(logits) == len(deltas) == 6


def test_another_rpn_head_cannot_read_two_widths():
    with pytest.raises(ValueError, match="RPN.HEAD_NAME is LazyRPNHead.* 4 channels .* 16"):
        build(**{"MODEL.RPN.HEAD_NAME": "LazyRPNHead"})


STEM = 64
BOTH = {"MODEL.EFPN.SMALL_IN_FEATURES": ["stem_map", "p2_prime"]}
ALONE = {"MODEL.EFPN.SMALL_IN_FEATURES": ["p2_prime"]}


def test_small_heads_read_the_stems_map_and_p2_prime_side_by_side():
    model = build(MASK, **BOTH)
    heads = model.roi_heads
    features = {
        name: torch.randn(1, shape.channels, 64 // shape.stride, 96 // shape.stride)
        for name, shape in model.backbone.output_shape().items()
    }
    boxes = [training_input(BOXES)["instances"].gt_boxes]
    for pooled, side in (
        (heads._pool_small_boxes(features, boxes), 7),
        (heads._pool_small_masks(features, boxes), 14),
    ):
        assert pooled.shape == (3, STEM + SLIM, side, side)
    # One channel of each map in the middle of a box that covers whole cells.
    flat = {name: torch.zeros_like(x) for name, x in features.items()}
    flat["stem_map"][:, 3] = 2.0
    flat["p2_prime"][:, 1] = 5.0
    means = heads._pool_small_boxes(flat, boxes).mean(dim=(0, 2, 3))
    expected = torch.zeros(STEM + SLIM)
    expected[3], expected[STEM + 1] = 2.0, 5.0
    torch.testing.assert_close(means, expected)


@pytest.mark.parametrize(
    ("options", "channels"),
    [
        ({}, STEM + SLIM),
        (BOTH, STEM + SLIM),
        (ALONE, SLIM),
        ({"MODEL.EFPN.TEXTURE": "none"}, SLIM),
        ({"MODEL.EFPN.TEXTURE": "c2_prime"}, SLIM),
    ],
)
def test_small_heads_read_the_stems_map_where_it_is_the_texture_or_as_they_are_told(
    options, channels
):
    heads = build(**options).roi_heads
    assert heads.small_box_head.fc1.in_features == channels * 7**2


@pytest.mark.parametrize(("name", "head"), [(FASTER, "box"), (CASCADE_MASK, "box"), (MASK, "mask")])
def test_new_heads_hear_both_maps_alike(name, head):
    model = build(name, **BOTH)
    found = getattr(model.roi_heads, f"small_{head}_head")
    first = next(m for m in found.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    weight = first.weight.detach().view(len(first.weight), STEM + SLIM, -1)
    energies = [x.square().sum() for x in weight.split([STEM, SLIM], dim=1)]
    torch.testing.assert_close(*energies, rtol=0.15, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"MODEL.EFPN.SMALL_IN_FEATURES": ["stem_map"]}, "SMALL_IN_FEATURES is .'stem_map'."),
        ({"MODEL.EFPN.SMALL_IN_FEATURES": ["p2_prime", "p2_prime"]}, "SMALL_IN_FEATURES"),
        ({**BOTH, "MODEL.EFPN.TEXTURE": "none"}, "SMALL_IN_FEATURES reads stem_map.*EFPN.TEXTURE"),
        ({**BOTH, "MODEL.ROI_MASK_HEAD.NUM_CONV": 0}, "NUM_CONV is 0"),
        ({"MODEL.EFPN.P2_PRIME_CHANNELS": 17}, "P2_PRIME_CHANNELS is 17.* 16 channels"),
        ({"MODEL.EFPN.P2_PRIME_CHANNELS": -1}, "P2_PRIME_CHANNELS is -1"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_sentence(options, message):
    with pytest.raises(ValueError, match=message) as error:
        build(MASK, **options)
    assert "\n" not in str(error.value)


def test_detectron2s_retinanet_cannot_read_two_widths():
    with pytest.raises(ValueError, match="META_ARCHITECTURE RetinaNet.* EFPNRetinaNet"):
        build(RETINANET, **{"MODEL.META_ARCHITECTURE": "RetinaNet"})


@pytest.mark.parametrize("upsampler", ["espcn", "nearest"])
@pytest.mark.parametrize("name", [FASTER, RETINANET])
def test_other_up_samplers_leave_no_parameter_without_gradient(name, upsampler):
    model = build(name, **{"MODEL.EFPN.UPSAMPLER": upsampler})
    sum(losses(model).values()).backward()
    assert without_gradient(model) == []


def test_a_network_without_the_configured_texture_is_refused():
    cfg = slim_config()
    for texture in ("c2_prime", "none"):
        bottom_up = ExtendedResNet.from_resnet(
            build_resnet_backbone(cfg, ShapeSpec(channels=3)), texture
        )
        with pytest.raises(ValueError, match="reads stem_map"):
            build_efpn(cfg, bottom_up, None)
    with pytest.raises(ValueError, match="texture is 'stem'"):
        ExtendedResNet.from_resnet(build_resnet_backbone(cfg, ShapeSpec(channels=3)), "stem")


def test_a_pyramid_without_texture_is_built_by_hand():
    cfg = slim_config()
    bottom_up = ExtendedResNet.from_resnet(build_resnet_backbone(cfg, ShapeSpec(channels=3)))
    extension = PyramidExtension(64, 8, texture_channels=0, preset="slim")
    efpn = EFPN(bottom_up, ["res2", "res3"], 8, extension=extension).eval()
    with torch.no_grad():
        assert efpn(torch.randn(1, 3, 32, 32))["p2_prime"].shape == (1, 2, 16, 16)


def test_from_a_stock_checkpoint_small_heads_start_as_the_stock_heads_but_for_what_reads(tmp_path):
    cfg = slim_config(MASK, **BOTH)
    torch.manual_seed(1)
    stock = build_model(stock_config(cfg))
    DetectionCheckpointer(stock, str(tmp_path)).save("stock")
    model = build_model(cfg)
    first = {"box_head.fc1.weight", "mask_head.mask_fcn1.weight"}
    drawn = {key: model.roi_heads.state_dict()[f"small_{key}"].clone() for key in first}
    EFPNCheckpointer(model).load(str(tmp_path / "stock.pth"))
    own = model.roi_heads.state_dict()
    for key, expected in stock.roi_heads.state_dict().items():
        assert torch.equal(own[f"small_{key}"], drawn.get(key, expected)), key


def test_p2_prime_proposes_next_to_nothing_at_first(tmp_path):
    cfg = slim_config(**BOTH)
    torch.manual_seed(1)
    DetectionCheckpointer(build_model(stock_config(cfg)), str(tmp_path)).save("stock")
    model = build_model(cfg).eval()
    EFPNCheckpointer(model).load(str(tmp_path / "stock.pth"))
    with torch.no_grad():
        maps = model.backbone(torch.randn(1, 3, 64, 64))
        head = model.proposal_generator.rpn_head
        (logits, *_), _ = head([maps[name] for name in model.proposal_generator.in_features])
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.01), atol=5e-3, rtol=0)
    # Its own weights are kept.
    nn.init.constant_(head.small_head.objectness_logits.bias, 3.0)
    EFPNCheckpointer(model, str(tmp_path)).save("own")
    EFPNCheckpointer(model).load(str(tmp_path / "own.pth"))
    assert (head.small_head.objectness_logits.bias == 3.0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"MODEL.EFPN.TEXTURE": "stem"}, "MODEL.EFPN.TEXTURE is 'stem'"),
        ({"MODEL.EFPN.PRESET": "slimmer"}, "MODEL.EFPN.PRESET is 'slimmer'"),
    ],
)
def test_config_mistakes_are_one_clear_sentence(options, message):
    with pytest.raises(ValueError, match=message) as error:
        build(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_lazy_is_dense_and_says_so(threshold, caplog):
    options = {"MODEL.EFPN.LAZY": True, "MODEL.EFPN.LAZY_QUERY_THRESHOLD": threshold}
    model = build(**options).eval()
    with torch.no_grad():
        assert isinstance(model.backbone(torch.randn(1, 3, 64, 64))["p2_prime"], torch.Tensor)
    assert "computed densely" in caplog.text
