"""Every part under autocast: losses in fp32 and finite, gradients everywhere."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

from efpn_d2.engine.training_loop import pool_in_fp32
from efpn_d2.losses import foreground_background_balanced_loss
from efpn_d2.modeling.backbone.ftt import ESPCN, FeatureTextureTransfer
from efpn_d2.modeling.roi_heads.ohem import box_losses
from tests.modeling.helpers import (
    WIDE_ENOUGH_FOR_BF16,
    tiny_config,
    training_input,
    without_gradient,
)
from tests.modeling.roi_heads.test_efpn_roi_heads import (
    LARGE,
    MIXED,
    SMALL,
    losses_of,
    make_features,
    make_heads,
    make_proposals,
)
from tests.modeling.roi_heads.test_ohem import make_ohem_heads

pytestmark = pytest.mark.fast

in_both = pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
# A CPU only emulates fp16 convolutions and matrix products.
in_bf16_and_slowly_in_fp16 = pytest.mark.parametrize(
    "precision", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]
)


def assert_trains(model, losses):
    # Where there is nothing to predict, Detectron2 sums no element, in the type of the prediction.
    assert all(v.dtype == torch.float32 for v in losses.values() if v != 0)
    assert all(torch.isfinite(v) for v in losses.values()), losses
    sum(losses.values()).backward()
    assert without_gradient(model) == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def assert_near(losses, expected):
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=0.05, abs=1e-3), name


@in_bf16_and_slowly_in_fp16
@pytest.mark.parametrize(
    ("cascade", "mask", "routing"),
    [
        (False, True, "reassign"),
        (False, False, "duplicate"),
        (False, True, "none"),
        (True, True, "reassign"),
    ],
)
@pytest.mark.parametrize("boxes", [MIXED, LARGE, SMALL, [[], []]])
def test_heads(precision, cascade, mask, routing, boxes):
    heads = make_heads(cascade, mask, **{"MODEL.EFPN.ROUTING": routing})
    expected = losses_of(heads, boxes, boxes)
    pool_in_fp32(heads)
    features = {k: v.to(precision) for k, v in make_features().items()}
    with torch.autocast("cpu", dtype=precision):
        losses = losses_of(heads, boxes, boxes, features)
    assert_trains(heads, losses)
    if not cascade:
        # A cascade's later stages sample by the boxes of the one before.
        assert_near(losses, expected)


@in_bf16_and_slowly_in_fp16
@pytest.mark.parametrize("boxes", [MIXED, LARGE, SMALL])
def test_heads_trained_by_hard_examples(precision, boxes):
    heads = make_ohem_heads(mask=True)
    pool_in_fp32(heads)
    features = {k: v.to(precision) for k, v in make_features().items()}
    with torch.autocast("cpu", dtype=precision):
        assert_trains(heads, losses_of(heads, boxes, boxes, features))


@in_both
def test_losses_that_rank_hard_examples_are_fp32(precision):
    """1001 classes of one logit: bf16 would round their losses to steps of 0.03."""
    heads = make_ohem_heads(**{"MODEL.ROI_HEADS.NUM_CLASSES": 1000})
    (proposals,) = make_proposals([[[4, 4, 12, 14]]])
    proposals.gt_classes = torch.tensor([1000])
    scores, deltas = torch.zeros(1, 1001), torch.zeros(1, 4000)
    predictions = (scores.to(precision), deltas.to(precision))
    with torch.autocast("cpu", dtype=precision):
        losses = box_losses(heads.small_box_predictor, predictions, [proposals], 1000)
    cls_loss, box_loss, _ = losses
    assert cls_loss.dtype == box_loss.dtype == torch.float32
    assert cls_loss.item() == pytest.approx(6.908755, abs=1e-5)


@in_bf16_and_slowly_in_fp16
@pytest.mark.parametrize(
    "module",
    [*(FeatureTextureTransfer(8, preset=p) for p in ("paper", "reference")), ESPCN(8)],
)
def test_up_samplers_compute_in_it(precision, module):
    torch.manual_seed(0)
    p3, p2 = torch.randn(2, 8, 3, 5), torch.randn(2, 8, 6, 10)
    expected = module(p3, p2)
    with torch.autocast("cpu", dtype=precision):
        p3_prime = module(p3.to(precision), p2.to(precision))
    assert p3_prime.dtype == precision
    assert torch.allclose(p3_prime.float(), expected, rtol=0.05, atol=0.05)


@in_both
def test_distillation_loss_is_accumulated_in_fp32(precision):
    """Sums of 300 over a million elements overflow fp16, and stand still in bf16."""
    targets = torch.full((1, 64, 128, 128), 300.0).to(precision)
    features = torch.zeros_like(targets, requires_grad=True)
    with torch.autocast("cpu", dtype=precision):
        losses = foreground_background_balanced_loss(
            features, targets, [Boxes(torch.tensor([[0.0, 0, 128, 128]]))], 1
        )
    assert {v.dtype for v in losses.values()} == {torch.float32}
    assert [v.item() for v in losses.values()] == [targets[0, 0, 0, 0].item()] * 2
    # One over the number of elements, 2^-20, is too small for fp16 but for its denormals.
    (1024 * losses["global"]).backward()
    assert features.grad.unique().item() == -(2.0**-10)


@in_bf16_and_slowly_in_fp16
@pytest.mark.parametrize(
    "name",
    [
        "COCO-Detection/retinanet_R_50_EFPN_1x.yaml",
        "COCO-InstanceSegmentation/cascade_mask_rcnn_R_50_EFPN_3x.yaml",
    ],
)
def test_other_detectors(precision, name):
    torch.manual_seed(0)
    model = build_model(tiny_config(name)).train()
    pool_in_fp32(model)
    boxes = ([[4, 4, 12, 14], [2, 2, 60, 60]], [])
    inputs = [training_input(x, size=WIDE_ENOUGH_FOR_BF16) for x in boxes]
    with EventStorage(), torch.autocast("cpu", dtype=precision):
        losses = model(inputs)
    assert_trains(model, losses)
