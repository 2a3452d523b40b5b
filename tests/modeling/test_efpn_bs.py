"""CEM and FBSM inserted by config alone, with each other and with all other options."""

import copy

import pytest
import torch
from detectron2.export import scripting_with_instances
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone, build_model
from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

import efpn_d2
from efpn_d2.engine import EFPNTrainer
from efpn_d2.engine.stages import stage_configs
from efpn_d2.modeling import ContextEnhancementModule, ForegroundBackgroundSeparationModule
from efpn_d2.modeling.config_checks import is_enhanced
from efpn_d2.modeling.freezing import eval_frozen_modules
from tests.modeling.helpers import tiny_config, training_input, without_gradient

pytestmark = pytest.mark.fast

FASTER = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"
CASCADE = "COCO-Detection/cascade_rcnn_R_50_EFPN_3x.yaml"
MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_EFPN_1x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_EFPN_1x.yaml"
CEM = ("MODEL.EFPN_BS.CEM_ENABLED", True)
FBSM = ("MODEL.EFPN_BS.FBSM_ENABLED", True)
MASK_LOSS = ("MODEL.EFPN_BS.FBSM_MASK_LOSS_WEIGHT", 0.5)
DCLOSS = ("MODEL.EFPN_BS.DCLOSS_ENABLED", True)
SGDM = ("MODEL.SGDM.AFTER_STAGES", ["res3"])


@BACKBONE_REGISTRY.register()
def build_someones_backbone(cfg, input_shape):
    return build_resnet_fpn_backbone(cfg, input_shape)


def config(name, *opts, extended=True):
    """A tiny config; without P'2 where not ``extended``."""
    cfg = tiny_config(name)
    cfg.merge_from_list(list(opts))
    if not extended:
        backbone = cfg.MODEL.BACKBONE.NAME.replace("_efpn_", "_enhanced_fpn_")
        cfg.MODEL.BACKBONE.NAME = backbone
        cfg.MODEL.EFPN.ROUTING = "none"
        if name == RETINANET:
            cfg.MODEL.RETINANET.IN_FEATURES = cfg.MODEL.RETINANET.IN_FEATURES[1:]
            cfg.MODEL.ANCHOR_GENERATOR.SIZES = cfg.MODEL.ANCHOR_GENERATOR.SIZES[1:]
    return cfg


def build(*args, **kwargs):
    torch.manual_seed(0)
    return build_model(config(*args, **kwargs)).train()


def train_once(model, boxes=((8, 8, 24, 28), (4, 4, 120, 120))):
    with EventStorage() as storage:
        losses = model([training_input([list(box) for box in boxes], size=(128, 128))])
    sum(losses.values()).backward()
    return losses, storage.latest()


@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize("name", [FASTER, CASCADE, MASK, RETINANET])
def test_all_options_together_train_every_parameter_and_detect(name, extended):
    model = build(name, *CEM, *FBSM, *MASK_LOSS, *DCLOSS, *SGDM, extended=extended)
    losses, logged = train_once(model)
    assert all(loss.isfinite() for loss in losses.values())
    assert {"loss_fbsm_bce", "loss_fbsm_dice"} <= losses.keys()
    assert without_gradient(model) == []
    gated = set(model.backbone.enhancement.fbsm.levels)
    contrasts = {k.removeprefix("fbsm/contrast_") for k in logged if k.startswith("fbsm/")}
    assert contrasts <= gated
    assert "p3" in contrasts
    assert gated == {"p2_prime", "p2", "p3", "p4"} & model.backbone.output_shape().keys()
    with torch.no_grad():
        outputs = model.eval()([training_input([], size=(96, 64))])
    assert outputs[0]["instances"].pred_boxes.tensor.isfinite().all()


@pytest.mark.parametrize("opts", [CEM, FBSM, (*CEM, *FBSM), (*FBSM, *SGDM), (*CEM, *DCLOSS)])
@pytest.mark.parametrize("name", [FASTER, RETINANET])
def test_options_combine_freely_also_without_objects(name, opts):
    model = build(name, *opts)
    losses, _ = train_once(model, boxes=())
    assert all(loss.isfinite() for loss in losses.values())
    steps = [] if model.backbone.enhancement is None else list(model.backbone.enhancement)
    kinds = {ContextEnhancementModule: CEM, ForegroundBackgroundSeparationModule: FBSM}
    for kind, key in kinds.items():
        assert any(isinstance(step, kind) for step in steps) == (key[0] in opts)


@pytest.mark.parametrize("name", [FASTER, RETINANET])
def test_the_loss_of_the_masks_trains_the_masks_alone_at_first(name):
    """The gates are closed, so detection does not reach them yet."""
    model = build(name, *FBSM)
    losses, logged = train_once(model)
    assert not any("fbsm" in k for k in losses)
    assert any(k.startswith("fbsm/contrast") for k in logged)
    masks = model.backbone.enhancement.fbsm.mask
    assert not any(p.grad.any() for p in masks.parameters())
    model = build(name, *FBSM, *MASK_LOSS)
    train_once(model)
    assert all(p.grad.any() for p in model.backbone.enhancement.fbsm.mask.parameters())


@pytest.mark.parametrize("name", [FASTER, RETINANET])
def test_the_weight_scales_the_loss_of_the_masks(name):
    key, value = MASK_LOSS
    one, double = (train_once(build(name, *FBSM, key, x))[0] for x in (value, 2 * value))
    for term in ("loss_fbsm_bce", "loss_fbsm_dice"):
        torch.testing.assert_close(double[term], 2 * one[term])


@pytest.mark.parametrize("name", [FASTER, RETINANET])
def test_a_copy_has_masks_of_its_own(name):
    model = build(name, *FBSM, *MASK_LOSS)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for mask in copied.backbone.enhancement.fbsm.mask.values():
            mask.bias.add_(3.0)
    losses, other = train_once(model)[0], train_once(copied)[0]
    assert not torch.isclose(losses["loss_fbsm_bce"], other["loss_fbsm_bce"])


STOCK = {FASTER: "GeneralizedRCNN", CASCADE: "GeneralizedRCNN", RETINANET: "RetinaNet"}


def architecture(name):
    return "MODEL.META_ARCHITECTURE", STOCK[name]


@pytest.mark.parametrize("opts", [(), (*CEM, *FBSM, *DCLOSS, *SGDM)])
@pytest.mark.parametrize("name", [FASTER, CASCADE])
def test_what_has_no_masks_to_learn_is_the_stock_meta_architecture_bitwise(name, opts):
    """The detectors' losses, gradients included, also beside the log of the masks."""
    ours, stock = build(name, *opts), build(name, *opts, *architecture(name))
    assert ours.state_dict().keys() == stock.state_dict().keys()
    found = []
    for model in (ours, stock):
        torch.manual_seed(1)
        losses, logged = train_once(model)
        grads = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
        found.append((losses, grads, {k for k in logged if k.startswith("fbsm/")}))
    (losses, grads, contrasts), (stock_losses, stock_grads, none) = found
    assert list(losses) == list(stock_losses)
    assert all(torch.equal(losses[k], stock_losses[k]) for k in losses)
    assert grads.keys() == stock_grads.keys()
    assert all(torch.equal(grads[k], stock_grads[k]) for k in grads)
    assert (len(contrasts) > 0) == (FBSM[0] in opts)
    assert none == set()


@pytest.mark.parametrize("name", [FASTER, RETINANET])
def test_a_frozen_fbsm_has_neither_loss_nor_log(name):
    model = build(name, *FBSM, *MASK_LOSS)
    model.backbone.enhancement.requires_grad_(False)
    eval_frozen_modules(model)
    losses, logged = train_once(model)
    assert not any("fbsm" in k for k in (*losses, *logged))


def test_the_loss_of_the_masks_needs_no_rpn():
    opts = ("MODEL.LOAD_PROPOSALS", True, "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals")
    model = build(FASTER, *FBSM, *MASK_LOSS, *opts)
    sample = training_input([[8, 8, 24, 28]], size=(128, 128))
    boxes = Boxes(torch.tensor([[8.0, 8, 24, 28], [40, 40, 90, 100]]))
    logits = torch.zeros(2)
    sample["proposals"] = Instances((128, 128), proposal_boxes=boxes, objectness_logits=logits)
    with EventStorage():
        losses = model([sample])
    assert list(losses) == ["loss_cls", "loss_box_reg", "loss_fbsm_bce", "loss_fbsm_dice"]
    assert all(loss.isfinite() for loss in losses.values())


def test_proposals_are_drawn_beside_the_losses_of_the_masks():
    model = build(FASTER, *FBSM, *MASK_LOSS, "VIS_PERIOD", 1)
    with EventStorage() as storage:
        model([training_input([[8, 8, 24, 28]])])
    ((name, picture, _),) = storage._vis_data
    assert "proposals" in name and picture.shape == (3, 64, 2 * 96)


@pytest.mark.parametrize("name", [FASTER, RETINANET])
def test_the_pyramid_runs_once_per_step(name):
    model, calls = build(name, *FBSM, *MASK_LOSS), []
    model.backbone.bottom_up.stem.conv1.register_forward_hook(lambda *_: calls.append(1))
    train_once(model)
    assert len(calls) == 1


def test_masks_are_computed_on_what_cem_made_of_the_levels():
    model = build(FASTER, *CEM, *FBSM).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        outputs, masks = model.backbone.forward_with_masks(images)
        expected = model.backbone(images)
        maps = model.backbone.enhancement.cem(model.backbone.plain_outputs(images))
        fbsm = model.backbone.enhancement.fbsm
        assert all(torch.equal(masks[k], fbsm.mask[k](maps[k])) for k in fbsm.levels)
    assert list(outputs) == list(expected)
    assert all(torch.equal(outputs[k], expected[k]) for k in expected)
    assert list(masks) == ["p2_prime", "p2", "p3", "p4"]
    assert build(FASTER, *CEM).backbone.forward_with_masks(images)[1] == {}
    assert build(FASTER).backbone.forward_with_masks(images)[1] == {}


class Inference(nn.Module):
    """What Detectron2's own examples script: without the boxes' postprocessing."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs: tuple[dict[str, torch.Tensor]]):
        return self.model.inference(inputs, do_postprocess=False)[0].get_fields()


@pytest.mark.parametrize("kind", ["GeneralizedRCNN", "EFPNRCNN", "DistillationRCNN"])
def test_a_detector_of_stock_parts_can_be_scripted(kind):
    heads = ("MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.META_ARCHITECTURE", kind)
    model = build(FASTER, *heads, extended=False).eval()
    fields = {
        **{"proposal_boxes": Boxes, "objectness_logits": torch.Tensor},
        **{"pred_boxes": Boxes, "scores": torch.Tensor, "pred_classes": torch.Tensor},
    }
    inputs = ({"image": training_input([], size=(128, 128))["image"]},)
    with torch.no_grad():
        found = scripting_with_instances(Inference(model).eval(), fields)(inputs)
        (expected,) = model.inference(inputs, do_postprocess=False)
    torch.testing.assert_close(found["scores"], expected.scores)


def test_a_retinanet_without_fbsm_can_be_scripted():
    model = build(RETINANET).eval()
    fields = {"pred_boxes": Boxes, "scores": torch.Tensor, "pred_classes": torch.Tensor}
    image = training_input([], size=(128, 128))["image"]
    with torch.no_grad():
        (found,) = scripting_with_instances(model, fields)([{"image": image}])
        (expected,) = model([{"image": image}])
    torch.testing.assert_close(found.scores, expected["instances"].scores)


def test_a_pyramid_that_builds_no_fbsm_is_refused():
    opts = ("MODEL.BACKBONE.NAME", "build_someones_backbone", "MODEL.EFPN.ROUTING", "none")
    with pytest.raises(ValueError, match="FBSM_ENABLED is True, but .* is build_someones_backbone"):
        build(FASTER, *FBSM, *opts)


@pytest.mark.parametrize(
    ("name", "key", "levels", "message"),
    [
        (FASTER, "FBSM_LEVELS", ["p22", "P3", "p4"], "FBSM_LEVELS reads p22, P3, but .* p2_prime,"),
        (FASTER, "CEM_FROM_LEVELS", ["P5", "p6"], "CEM_FROM_LEVELS reads P5, but the backbone"),
        (RETINANET, "CEM_TO_LEVELS", ["p2"], "CEM_TO_LEVELS reads p2, but the backbone"),
        (FASTER, "FBSM_LEVELS", [], "FBSM_LEVELS is empty: name one or more of p2_prime, p2,"),
    ],
)
def test_levels_that_no_pyramid_has_are_refused(name, key, levels, message):
    with pytest.raises(ValueError, match=f"^MODEL.EFPN_BS.{message}"):
        build(name, *CEM, *FBSM, f"MODEL.EFPN_BS.{key}", levels)


class TestWhatTheHighLevelsLearn:
    """The abstract's claim: objects are tiny, so P5 and P6 get no gradient, and CEM gives it."""

    def gradient_at_p5(self, *opts, monkeypatch):
        model = build(FASTER, *opts, extended=False)
        rpn = model.proposal_generator
        high = sum(len(x) for x in self.anchors(model)[3:])  # P5 and P6 of P2 ... P6
        subsample = rpn._subsample_labels

        def only_low_levels(labels):
            labels[-high:] = -1
            return subsample(labels)

        monkeypatch.setattr(rpn, "_subsample_labels", only_low_levels)
        train_once(model, boxes=[(8, 8, 24, 28), (60, 40, 70, 52)])
        return model.backbone.fpn_output5.weight.grad

    def anchors(self, model):
        shapes = model.backbone.output_shape()
        sizes = [128 // shapes[name].stride for name in ("p2", "p3", "p4", "p5", "p6")]
        return model.proposal_generator.anchor_generator([torch.zeros(1, 1, x, x) for x in sizes])

    def test_in_stock_fpn_it_is_exactly_zero(self, monkeypatch):
        gradient = self.gradient_at_p5(monkeypatch=monkeypatch)
        assert not gradient.any()

    def test_with_cem_it_is_not(self, monkeypatch):
        assert self.gradient_at_p5(*CEM, monkeypatch=monkeypatch).any()

    def test_fbsm_alone_does_not_help(self, monkeypatch):
        assert not self.gradient_at_p5(*FBSM, monkeypatch=monkeypatch).any()


def test_cem_starts_near_the_pyramid_and_fbsm_at_it():
    images = torch.randn(1, 3, 128, 128)
    maps = {}
    for key, opts in {"plain": (), "cem": CEM, "fbsm": FBSM}.items():
        torch.manual_seed(0)
        backbone = build_backbone(config(FASTER, *opts)).eval()
        maps.setdefault("weights", backbone.state_dict())
        backbone.load_state_dict(maps["weights"], strict=False)
        with torch.no_grad():
            maps[key] = backbone(images)
    for name, x in maps["plain"].items():
        assert torch.equal(maps["fbsm"][name], x)
        change = (maps["cem"][name] - x).norm() / x.norm()
        assert (0 < change < 0.2) if name in ("p2", "p3", "p4") else change == 0


@pytest.mark.parametrize("name", [FASTER, RETINANET])
@pytest.mark.parametrize("key", [CEM, FBSM])
def test_stock_builders_that_would_lose_them_are_refused(name, key):
    cfg = config(name, *key)
    assert is_enhanced(cfg)
    cfg.MODEL.BACKBONE.NAME = cfg.MODEL.BACKBONE.NAME.replace("_efpn_", "_fpn_")
    with pytest.raises(ValueError, match="BACKBONE.NAME .*_fpn_.*enhanced_fpn"):
        EFPNTrainer.build_model(cfg)


@pytest.mark.parametrize(
    ("name", "opts", "message"),
    [
        (FASTER, (*FBSM, *architecture(FASTER)), "META_ARCHITECTURE GeneralizedRCNN.* EFPNRCNN"),
        (RETINANET, (*FBSM, *architecture(RETINANET)), "to EFPNRetinaNet"),
        (FASTER, (), "FBSM_ENABLED is False"),
    ],
)
def test_a_loss_of_the_masks_that_would_be_lost_is_refused(name, opts, message):
    cfg = config(name, *opts, *MASK_LOSS)
    with pytest.raises(ValueError, match=message) as error:
        EFPNTrainer.build_model(cfg)
    assert "\n" not in str(error.value)


def test_a_negative_weight_of_the_masks_is_refused():
    with pytest.raises(ValueError, match="MASK_LOSS_WEIGHT is -1.0: use 0.0"):
        EFPNTrainer.build_model(config(FASTER, *FBSM, MASK_LOSS[0], -1.0))


def test_the_base_stage_keeps_what_can_be_trained_without_p2_prime():
    cfg = config(FASTER, *CEM, *FBSM, *MASK_LOSS)
    cfg.DISTILL.SCHEDULE = [["base", 10, 0.01], ["distill", 10, 0.01]]
    base, _ = stage_configs(cfg)
    torch.manual_seed(0)
    model = EFPNTrainer.build_model(base).train()
    losses, _ = train_once(model)
    assert {"loss_fbsm_bce", "loss_fbsm_dice"} <= losses.keys()
    assert without_gradient(model) == []
    assert set(model.backbone.enhancement.fbsm.levels) == {"p2", "p3", "p4"}


def test_the_budget_on_resnet_50():
    """CEM has most of its parameters in the convolutions before a pixel shuffle."""
    cfg = efpn_d2.get_config(FASTER)
    cfg.MODEL.DEVICE = "cpu"
    cfg.merge_from_list([*CEM, *FBSM])
    enhancement = build_backbone(cfg).enhancement

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    # Of P5 and P6, 256 channels each compressed and pooled to 64; spread to 16 channels at 1/8, 1/4
    # and 1/2 of P5's stride and twice that of P6's; per low level 16 local and 64 global to 256.
    spread = sum(64 * 9 * 16 * f**2 + 16 * f**2 for f in (8, 4, 2, 16, 8, 4))
    assert count(enhancement.cem) == 4 * (256 * 64 + 64) + spread + 3 * (16 * 256 + 256 + 64 * 256)
    assert count(enhancement.fbsm) == 4 * (256 * 9 + 1 + 1)
