import pytest
import torch
from detectron2.utils.events import EventStorage

from efpn_d2.modeling.freezing import freeze_all_but
from efpn_d2.modeling.roi_heads import select_hard_boxes
from efpn_d2.modeling.roi_heads.ohem import box_losses
from tests.modeling.helpers import training_input, without_gradient
from tests.modeling.roi_heads.test_efpn_roi_heads import (
    LARGE,
    MIXED,
    SIZE,
    SMALL,
    detect,
    make_features,
    make_heads,
    make_proposals,
)

pytestmark = pytest.mark.fast


def make_ohem_heads(mask: bool = False, **options: object) -> torch.nn.Module:
    heads = make_heads(mask=mask, **{"MODEL.ROI_HEADS.NAME": "OHEMSmallROIHeads", **options})
    freeze_all_but(heads, ("small_",))
    return heads.train()


def losses_of(heads: torch.nn.Module, boxes: list, gt: list) -> dict[str, torch.Tensor]:
    targets = [training_input(per_image, size=SIZE)["instances"] for per_image in gt]
    torch.manual_seed(1)
    with EventStorage():
        return heads(None, make_features(), make_proposals(boxes), targets)[1]


def select(cls, box, foreground, count, fraction) -> list[int]:
    selected = select_hard_boxes(
        torch.tensor(cls), torch.tensor(box), torch.tensor(foreground), count, fraction
    )
    return selected.nonzero()[:, 0].tolist()


def test_selection_by_hand():
    cls = [1.0, 2.0, 0.5, 5.0, 4.0, 3.0, 0.1]
    box = [3.0, 0.0, 2.0, 9.0, 9.0, 0.0, 9.0]
    foreground = [True, True, True, False, False, False, False]
    # 25 % of 4 is one object: by the sum 4.0 box 0 leads, though box 1 is harder to classify. The
    # other three are background by classification loss alone.
    assert select(cls, box, foreground, 4, 0.25) == [0, 3, 4, 5]
    assert select(cls, box, foreground, 4, 0.5) == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("foreground", "count", "expected"),
    [
        ([], 4, 0),
        ([True, True, True], 8, 2),
        ([False, False, False], 2, 2),
        ([True, False, False], 100, 3),
    ],
)
def test_selection_takes_what_there_is(foreground, count, expected):
    losses = torch.arange(len(foreground), dtype=torch.float32)
    foreground = torch.tensor(foreground, dtype=torch.bool)
    assert select_hard_boxes(losses, losses, foreground, count, 0.25).sum() == expected


def test_only_small_boxes_are_trained_and_the_stock_heads_do_not_run():
    heads = make_ohem_heads()
    for part in (heads.box_head, heads.box_predictor):
        part.register_forward_hook(lambda *_: pytest.fail("a stock head ran"))
    pooled = []
    heads.small_box_pooler.register_forward_pre_hook(lambda _, args: pooled.extend(args[1]))
    losses = losses_of(heads, MIXED, MIXED)
    sum(losses.values()).backward()
    boxes = torch.cat([b.tensor for b in pooled])
    assert len(boxes) > 0
    assert ((boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt() < 32).all()
    assert without_gradient(heads) == []


def test_large_objects_take_no_place_of_small_ones():
    places = {"MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16, "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25}
    heads = make_ohem_heads(**places)
    small = [[10.0 * i, 2, 10.0 * i + 8, 10] for i in range(4)]
    large = [[i, 0, 60 + i, 60] for i in range(30)]
    targets = [training_input([*large, *small], size=SIZE)["instances"]]
    with EventStorage() as storage:
        (sampled,) = heads.label_and_sample_proposals(make_proposals([large]), targets)
        counted = storage.latest()["roi_head/num_fg_samples"][0]
    assert sorted(sampled.proposal_boxes.tensor.tolist()) == small
    assert counted == 4


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("boxes", [MIXED, LARGE, SMALL])
@pytest.mark.parametrize("gt", [MIXED, LARGE, [[], []]])
def test_losses_are_finite_and_reach_every_trained_parameter(mask, boxes, gt):
    heads = make_ohem_heads(mask)
    losses = losses_of(heads, boxes, gt)
    assert all(torch.isfinite(v) for v in losses.values())
    assert ("loss_mask" in losses) == mask
    sum(losses.values()).backward()
    assert without_gradient(heads) == []


def test_the_loss_is_that_of_the_hardest_boxes():
    one = make_ohem_heads(
        **{"DISTILL.OHEM_BATCH": 1, "DISTILL.OHEM_POSITIVE_FRACTION": 0.0,
           "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": False}
    )  # fmt: skip
    background = [[[30, 2, 40, 12], [60, 40, 70, 52]], [[2, 40, 10, 50]]]
    losses = losses_of(one, background, [[], []])
    each = []
    for i, per_image in enumerate(background):
        for box in per_image:
            alone: list = [[], []]
            alone[i] = [box]
            each.append(losses_of(one, alone, [[], []])["loss_cls"].item())
    assert losses["loss_cls"].item() == pytest.approx(max(each), rel=1e-5)


def test_ranked_losses_sum_to_the_predictors_own():
    heads = make_ohem_heads()
    targets = [training_input(per_image, size=SIZE)["instances"] for per_image in SMALL]
    with EventStorage():
        proposals = heads.label_and_sample_proposals(make_proposals(SMALL), targets)
        boxes = [x.proposal_boxes for x in proposals]
        pooled = heads.small_box_pooler([make_features()["p2_prime"]], boxes)
        predictions = heads.small_box_predictor(heads.small_box_head(pooled))
        expected = heads.small_box_predictor.losses(predictions, proposals)
    cls_loss, box_loss, foreground = box_losses(
        heads.small_box_predictor, predictions, proposals, heads.num_classes
    )
    assert foreground.any()
    assert torch.allclose(cls_loss.mean(), expected["loss_cls"], atol=1e-5)
    assert torch.allclose(box_loss.sum() / len(box_loss), expected["loss_box_reg"], atol=1e-5)


def test_inference_is_that_of_the_plain_heads():
    ohem, plain = make_ohem_heads(mask=True), make_heads(mask=True)
    plain.load_state_dict(ohem.state_dict())
    for x, y in zip(detect(ohem, MIXED), detect(plain, MIXED), strict=True):
        assert torch.equal(x.pred_boxes.tensor, y.pred_boxes.tensor)
        assert torch.equal(x.pred_masks, y.pred_masks)


def test_without_routing_there_is_nothing_to_train():
    with pytest.raises(ValueError, match="MODEL.EFPN.ROUTING is none"):
        make_ohem_heads(**{"MODEL.EFPN.ROUTING": "none"})


def test_counts_that_select_nothing_are_refused():
    with pytest.raises(ValueError, match="DISTILL.OHEM_BATCH 0"):
        make_ohem_heads(**{"DISTILL.OHEM_BATCH": 0})
