"""Insertion into bottom-up network and pyramid by config alone, with and without P'2."""

import detectron2.export.torchscript_patch  # noqa: F401  makes stock backbones scriptable
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.utils.events import EventStorage
from torch import nn

import efpn_d2
from efpn_d2.data.student_view import TeacherViewMapper
from efpn_d2.modeling import StaticGuidedDynamicModule
from efpn_d2.modeling.config_checks import ENHANCED_BUILDERS, check_config
from tests.modeling.helpers import tiny_config, training_input, without_gradient

pytestmark = pytest.mark.fast

RETINANET = "COCO-Detection/retinanet_R_50_EFPN_1x.yaml"
TWO_STAGE = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"
STAGES = ["res2", "res3", "res4", "res5"]


def build_pair(
    name: str, kind: str, stages: list[str], levels: list[str]
) -> tuple[Backbone, Backbone]:
    """A backbone without SGDM, and one with it and the former's weights, in evaluation mode.

    Args:
        kind: ``efpn``, or ``fpn`` for a pyramid without P'2.
    """
    cfg = tiny_config(name)
    torch.manual_seed(0)
    if kind == "fpn":
        cfg.MODEL.BACKBONE.NAME = cfg.MODEL.BACKBONE.NAME.replace("efpn", "fpn")
    without = build_backbone(cfg).eval()
    if kind == "fpn":
        cfg.MODEL.BACKBONE.NAME = cfg.MODEL.BACKBONE.NAME.replace("_fpn", "_enhanced_fpn")
    cfg.MODEL.SGDM.AFTER_STAGES = stages
    cfg.MODEL.SGDM.ON_LEVELS = levels
    inserted = build_backbone(cfg).eval()
    missing, unexpected = inserted.load_state_dict(without.state_dict(), strict=False)
    assert unexpected == []
    prefixes = [f"bottom_up.{stage}.sgdm." for stage in stages]
    prefixes += [f"enhancement.sgdm.{level}." for level in levels]
    assert {k for k in missing if not k.startswith(tuple(prefixes))} == set()
    assert all(any(k.startswith(prefix) for k in missing) for prefix in prefixes)
    return without, inserted


def use_all(backbone: nn.Module) -> None:
    """Give all blocks an attention that is not the start's."""
    for block in backbone.modules():
        if isinstance(block, StaticGuidedDynamicModule):
            nn.init.normal_(block.proj.weight)


CASES = [
    (TWO_STAGE, "efpn", STAGES, ["p2_prime", "p3"]),
    (TWO_STAGE, "fpn", STAGES, ["p2", "p6"]),
    (RETINANET, "efpn", STAGES, ["p3"]),
    (RETINANET, "fpn", ["res2", "res5"], ["p7"]),
]


@pytest.mark.parametrize(("name", "kind", "stages", "levels"), CASES)
def test_only_keys_are_added_and_nothing_changes_at_first(name, kind, stages, levels):
    without, inserted = build_pair(name, kind, stages, levels)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected, outputs = without(images), inserted(images)
        assert list(outputs) == list(expected) == list(inserted.output_shape())
        assert all(torch.equal(outputs[k], expected[k]) for k in expected)
        use_all(inserted)
        changed = inserted(images)
    assert not any(torch.allclose(changed[k], expected[k], atol=0.01) for k in expected)


@pytest.mark.parametrize(("name", "kind"), [(TWO_STAGE, "fpn"), (RETINANET, "fpn")])
def test_with_nothing_to_insert_it_is_stock_fpn(name, kind):
    without, inserted = build_pair(name, kind, [], [])
    assert isinstance(inserted, FPN)
    assert inserted.state_dict().keys() == without.state_dict().keys()


@pytest.mark.parametrize(("name", "kind", "stages", "levels"), CASES[:2])
def test_scripted_with_blocks_equals_the_eager_one(name, kind, stages, levels):
    _, inserted = build_pair(name, kind, stages, levels)
    use_all(inserted)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, outputs = inserted(images), torch.jit.script(inserted)(images)
    assert list(outputs) == list(expected)
    assert all(torch.allclose(outputs[k], expected[k], atol=1e-5) for k in expected)


def test_levels_have_blocks_of_their_own():
    without, inserted = build_pair(TWO_STAGE, "efpn", [], ["p2_prime", "p4"])
    use_all(inserted)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, outputs = without(images), inserted(images)
        for level, block in inserted.enhancement.sgdm.items():
            expected[level] = block(expected[level])
    assert all(torch.equal(outputs[k], expected[k]) for k in expected)
    assert not torch.equal(outputs["p4"], without(images)["p4"])


def test_c2_prime_gets_the_block_of_res2_with_kernels_of_its_own():
    without, inserted = build_pair(TWO_STAGE, "efpn", ["res2"], [])
    use_all(inserted)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plain, attended = without.bottom_up(images), inserted.bottom_up(images)
        block = inserted.bottom_up.res2.sgdm
        for name in ("res2", "c2_prime"):
            assert torch.equal(attended[name], block(plain[name]))
            assert not torch.allclose(attended[name], plain[name], atol=0.01)


def test_a_block_after_a_frozen_stage_is_trained():
    cfg = tiny_config()
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    cfg.MODEL.SGDM.AFTER_STAGES = ["res2"]
    backbone = build_backbone(cfg).train()
    stage = backbone.bottom_up.res2
    trainable = {k for k, p in stage.named_parameters() if p.requires_grad}
    assert trainable == {k for k, _ in stage.named_parameters() if k.startswith("sgdm.")}
    backbone(torch.randn(1, 3, 64, 64))["p2_prime"].square().mean().backward()
    assert stage.sgdm.proj.weight.grad.any()


@pytest.mark.parametrize("suffix", ["efpn", "enhanced_fpn"])
def test_a_stock_checkpoint_misses_only_the_new_keys(suffix, tmp_path):
    cfg = tiny_config()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.PROPOSAL_GENERATOR.NAME, cfg.MODEL.ROI_HEADS.NAME = "RPN", "StandardROIHeads"
    stock = build_model(cfg)
    torch.save({"model": stock.state_dict()}, tmp_path / "stock.pth")
    cfg.MODEL.BACKBONE.NAME = f"build_resnet_{suffix}_backbone"
    cfg.MODEL.SGDM.AFTER_STAGES, cfg.MODEL.SGDM.ON_LEVELS = STAGES, ["p2"]
    model = build_model(cfg)
    logged = []
    checkpointer = DetectionCheckpointer(model)
    checkpointer._log_incompatible_keys = logged.append
    checkpointer.load(str(tmp_path / "stock.pth"))
    new = [k for k in logged[0].missing_keys if not k.startswith("backbone.extension.")]
    assert logged[0].unexpected_keys == []
    assert new
    assert all(".sgdm." in k for k in new)


def test_joint_training_reaches_the_blocks_on_levels():
    cfg = tiny_config()
    cfg.MODEL.SGDM.AFTER_STAGES, cfg.MODEL.SGDM.ON_LEVELS = ["res3"], ["p2_prime", "p2"]
    cfg.MODEL.META_ARCHITECTURE = "DistillationRCNN"
    cfg.DISTILL.STAGE = "joint"
    torch.manual_seed(0)
    model = build_model(cfg).train()
    with EventStorage():
        sample = training_input([[8, 8, 24, 28], [4, 4, 120, 120]], size=(128, 128))
        losses = model([TeacherViewMapper(dict)(sample)])
    sum(losses.values()).backward()
    assert without_gradient(model) == []
    assert model.backbone.enhancement.sgdm["p2"].proj.weight.grad.any()
    assert model.backbone.enhancement.sgdm["p2_prime"].proj.weight.grad.any()


def test_on_resnet_50_the_blocks_after_all_stages_stay_in_the_budget():
    cfg = efpn_d2.get_config("Ablations/faster_rcnn_R_50_EFPN_sgdm.yaml")
    cfg.MODEL.DEVICE = "cpu"
    backbone = build_backbone(cfg)
    blocks = {k: v for k, v in backbone.named_modules() if isinstance(v, StaticGuidedDynamicModule)}
    assert list(blocks) == [f"bottom_up.{stage}.sgdm" for stage in STAGES]
    counts = [sum(p.numel() for p in block.parameters()) for block in blocks.values()]
    # d = C / 4 channels are dynamic. MLP d - d/4 - d with biases; 3x3 depthwise convolution with
    # bias; 4 shared kernels of 3 + 3 + 9 taps, 12 mixing weights per channel; 1x1 to one channel.
    widths = [(c, c // 4) for c in (256, 512, 1024, 2048)]
    assert counts == [d * d // 2 + d // 4 + d + 10 * d + 60 + 12 * d + c + 1 for c, d in widths]
    assert sum(counts) < 350_000


@pytest.mark.parametrize("kind", ["efpn", "enhanced_fpn"])
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("AFTER_STAGES", ["res6"], "AFTER_STAGES names res6, but .* are res2, res3, res4, res5: "),
        ("ON_LEVELS", ["p9"], "MODEL.SGDM.ON_LEVELS reads p9, but"),
    ],
)
def test_config_mistakes_are_one_clear_sentence(kind, key, value, message):
    cfg = tiny_config()
    cfg.MODEL.BACKBONE.NAME = f"build_resnet_{kind}_backbone"
    cfg.MODEL.SGDM[key] = value
    with pytest.raises(ValueError, match=message) as error:
        build_backbone(cfg, ShapeSpec(channels=3))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("stock", "ours"), ENHANCED_BUILDERS.items())
def test_a_stock_builder_that_would_lose_the_blocks_is_refused(stock, ours):
    cfg = tiny_config()
    cfg.MODEL.BACKBONE.NAME = stock
    check_config(cfg)
    for key in ("AFTER_STAGES", "ON_LEVELS"):
        other = cfg.clone()
        other.MODEL.SGDM[key] = ["p3"]
        with pytest.raises(ValueError, match=f"{stock}: set it to {ours}"):
            check_config(other)
        other.MODEL.BACKBONE.NAME = ours
        check_config(other)
