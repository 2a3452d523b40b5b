import copy

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_roi_heads
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from efpn_d2.modeling import EFPNCascadeROIHeads, EFPNROIHeads
from tests.modeling.helpers import tiny_config, training_input, without_gradient

pytestmark = pytest.mark.fast

CHANNELS = 16
SIZE = (64, 96)
STRIDES = {"p2_prime": 2, "p2": 4, "p3": 8, "p4": 16, "p5": 32}
MIXED = [
    [[4, 4, 12, 14], [2, 2, 60, 60], [40, 30, 52, 41]],
    [[10, 10, 80, 60], [5.0, 5, 9, 9]],
]
LARGE = [[[2, 2, 60, 60]], [[10, 10, 80, 60], [0, 0, 70, 60]]]
SMALL = [[[4, 4, 12, 14]], [[5, 5, 9, 9], [20, 20, 30, 30]]]


def make_features(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        k: torch.randn(2, CHANNELS, SIZE[0] // s, SIZE[1] // s, generator=generator)
        for k, s in STRIDES.items()
    }


@pytest.mark.parametrize(
    ("ours", "stock"),
    [(EFPNROIHeads, StandardROIHeads), (EFPNCascadeROIHeads, CascadeROIHeads)],
)
def test_they_take_the_arguments_of_the_stock_heads_alone(ours, stock):
    cfg = tiny_config()
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    shapes = {k: ShapeSpec(channels=CHANNELS, stride=s) for k, s in STRIDES.items()}
    arguments = stock.from_config(cfg, shapes)
    heads = ours(**arguments)
    assert (heads.router.mode, heads.router.small_box_size) == ("none", 56.0)
    assert heads.state_dict().keys() == stock(**arguments).state_dict().keys()
    own = ours.from_config(cfg, shapes)
    del own["router"]
    assert ours(**own).router.mode == "reassign"


def make_proposals(boxes: list) -> list[Instances]:
    out = []
    for per_image in boxes:
        x = Instances(SIZE)
        x.proposal_boxes = Boxes(torch.tensor(per_image, dtype=torch.float32).reshape(-1, 4))
        x.objectness_logits = torch.zeros(len(per_image))
        out.append(x)
    return out


def make_heads(cascade: bool = False, mask: bool = False, **options: object) -> torch.nn.Module:
    cfg = tiny_config()
    cfg.MODEL.ROI_HEADS.NAME = "EFPNCascadeROIHeads" if cascade else "EFPNROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = cascade
    cfg.MODEL.MASK_ON = mask
    cfg.MODEL.EFPN.SMALL_BOX_SIZE = 32.0
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.merge_from_list([x for pair in options.items() for x in pair])
    shapes = {k: ShapeSpec(channels=CHANNELS, stride=s) for k, s in STRIDES.items()}
    torch.manual_seed(0)
    heads = build_roi_heads(cfg, shapes)
    for name, p in heads.named_parameters():
        if "predictor" in name:
            torch.nn.init.normal_(p, std=0.5)
    return heads


def stock_of(heads: torch.nn.Module, **options: object) -> torch.nn.Module:
    """Detectron2's own heads with the weights of ``heads``' stock part."""
    cfg = tiny_config()
    cascade = "Cascade" in type(heads).__name__
    cfg.MODEL.ROI_HEADS.NAME = "CascadeROIHeads" if cascade else "StandardROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = cascade
    cfg.MODEL.MASK_ON = heads.mask_on
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.merge_from_list([x for pair in options.items() for x in pair])
    shapes = {k: ShapeSpec(channels=CHANNELS, stride=s) for k, s in STRIDES.items()}
    stock = build_roi_heads(cfg, shapes)
    weights = {k: v for k, v in heads.state_dict().items() if not k.startswith("small_")}
    stock.load_state_dict(weights)
    return stock


def detect(heads: torch.nn.Module, boxes: list, features: dict | None = None) -> list[Instances]:
    with torch.no_grad():
        return heads.eval()(None, features or make_features(), make_proposals(boxes))[0]


def losses_of(heads: torch.nn.Module, boxes: list, gt: list, features: dict | None = None) -> dict:
    targets = [training_input(per_image, size=SIZE)["instances"] for per_image in gt]
    torch.manual_seed(1)
    with EventStorage():
        features = features or make_features()
        return heads.train()(None, features, make_proposals(boxes), targets)[1]


def assert_same_detections(found: list[Instances], expected: list[Instances]) -> None:
    for x, y in zip(found, expected, strict=True):
        assert x.get_fields().keys() == y.get_fields().keys()
        for name, value in x.get_fields().items():
            other = y.get(name)
            pair = (value.tensor, other.tensor) if name == "pred_boxes" else (value, other)
            assert torch.equal(*pair), name


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_without_routing_they_are_the_stock_heads_bitwise(cascade, mask):
    heads = make_heads(cascade, mask, **{"MODEL.EFPN.ROUTING": "none"})
    stock = stock_of(heads)
    assert_same_detections(detect(heads, MIXED), detect(stock, MIXED))
    ours, theirs = (losses_of(h, MIXED, MIXED) for h in (heads, stock))
    assert {k: v.item() for k, v in ours.items()} == {k: v.item() for k, v in theirs.items()}


def test_without_routing_a_stock_pyramid_is_enough():
    heads = make_heads(**{"MODEL.EFPN.ROUTING": "none"})
    features = make_features()
    del features["p2_prime"]
    ours, theirs = (losses_of(h, MIXED, MIXED, features) for h in (heads, stock_of(heads)))
    assert {k: v.item() for k, v in ours.items()} == {k: v.item() for k, v in theirs.items()}


@pytest.mark.parametrize("cascade", [False, True])
def test_large_boxes_alone_give_the_stock_detections(cascade):
    heads = make_heads(cascade, mask=True)
    # A cascade may shrink a box below the threshold: then it is rightly routed to P'2.
    heads.router.small_box_size = 1e-3 if cascade else 32.0
    assert_same_detections(detect(heads, LARGE), detect(stock_of(heads), LARGE))


def one_by_one(heads: torch.nn.Module, boxes: list, duplicate: bool) -> list[Instances]:
    """The routed box head as one would write it first: a loop over boxes, then one NMS."""
    features = make_features()
    pred_boxes, pred_scores = [], []
    for i, per_image in enumerate(boxes):
        parts = [(box, small_head(box)) for box in per_image]
        if duplicate:
            small = [(box, True) for box in per_image if small_head(box)]
            parts = [(box, False) for box in per_image] + small
        own_boxes, own_scores = [], []
        for box, small in parts:
            proposal = make_proposals([[box]])
            names = ["p2_prime"] if small else ["p2", "p3", "p4", "p5"]
            prefix = "small_" if small else ""
            pool, head, predictor = (
                getattr(heads, f"{prefix}box_{part}") for part in ("pooler", "head", "predictor")
            )
            maps = [features[k][i : i + 1] for k in names]
            predictions = predictor(head(pool(maps, [proposal[0].proposal_boxes])))
            own_boxes.append(predictor.predict_boxes(predictions, proposal)[0])
            own_scores.append(predictor.predict_probs(predictions, proposal)[0])
        pred_boxes.append(torch.cat(own_boxes))
        pred_scores.append(torch.cat(own_scores))
    return fast_rcnn_inference(pred_boxes, pred_scores, [SIZE, SIZE], 0.0, 0.5, 100)[0]


def small_head(box: list[float]) -> bool:
    return ((box[2] - box[0]) * (box[3] - box[1])) ** 0.5 < 32


@pytest.mark.parametrize("routing", ["reassign", "duplicate"])
@pytest.mark.parametrize("boxes", [MIXED, LARGE, SMALL])
def test_routed_detections_equal_a_loop_over_boxes(routing, boxes):
    heads = make_heads(**{"MODEL.EFPN.ROUTING": routing})
    found = detect(heads, boxes)
    with torch.no_grad():
        expected = one_by_one(heads, boxes, routing == "duplicate")
    for x, y in zip(found, expected, strict=True):
        assert len(x) == len(y) > 0
        assert torch.allclose(x.pred_boxes.tensor, y.pred_boxes.tensor, atol=1e-4)
        assert torch.allclose(x.scores, y.scores, atol=1e-5)
        assert torch.equal(x.pred_classes, y.pred_classes)


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("boxes", [[MIXED[0], []], [[], []]])
def test_images_without_a_proposal_have_no_detection(cascade, boxes):
    found = detect(make_heads(cascade, mask=True), boxes)
    assert [len(x) > 0 for x in found] == [len(per_image) > 0 for per_image in boxes]
    assert all(x.has("pred_masks") for x in found)


def test_auto_routing_is_that_of_the_preset():
    routing = {
        preset: make_heads(**{"MODEL.EFPN.PRESET": preset}).router.mode
        for preset in ("paper", "reference", "slim")
    }
    assert routing == {"paper": "reassign", "reference": "duplicate", "slim": "reassign"}


def test_small_boxes_read_p2_prime_only_and_large_boxes_never():
    heads = make_heads()
    features, changed = make_features(), make_features()
    changed["p2_prime"] = changed["p2_prime"] + 1
    assert_same_detections(detect(heads, LARGE, features), detect(heads, LARGE, changed))
    others = make_features()
    for name in ("p2", "p3", "p4", "p5"):
        others[name] = others[name] + 1
    assert_same_detections(detect(heads, SMALL, features), detect(heads, SMALL, others))
    scores = [detect(heads, SMALL, f)[0].scores for f in (features, changed)]
    assert not torch.equal(*scores)


def test_with_the_stock_weights_in_both_heads_the_loss_is_the_mean_over_all_boxes():
    """Where both heads have the same weights and maps, who has a box must not change its weight."""
    heads = make_heads(mask=True)
    # With P2 in the place of P'2 and everything on one level, both heads see the same.
    heads.small_in_features, heads.box_in_features, heads.mask_in_features = ["p2"], ["p2"], ["p2"]
    heads.box_pooler = copy.deepcopy(heads.small_box_pooler)
    heads.mask_pooler = copy.deepcopy(heads.small_mask_pooler)
    for part in ("box_head", "box_predictor", "mask_head"):
        getattr(heads, f"small_{part}").load_state_dict(getattr(heads, part).state_dict())
    losses = losses_of(heads, MIXED, MIXED)
    heads.router.small_box_size = 1e-6
    unrouted = losses_of(heads, MIXED, MIXED)
    for name, value in losses.items():
        assert torch.allclose(value, unrouted[name], atol=1e-6), name


@pytest.mark.parametrize(("cascade", "routing"), [
    (False, "reassign"), (False, "duplicate"), (False, "none"), (True, "reassign"), (True, "none"),
])  # fmt: skip
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("boxes", [MIXED, LARGE, SMALL, [[], []]])
@pytest.mark.parametrize("gt", [MIXED, [[], []]])
def test_losses_are_finite_and_reach_every_parameter_and_map(cascade, mask, boxes, gt, routing):
    heads = make_heads(cascade, mask, **{"MODEL.EFPN.ROUTING": routing})
    features = {k: v.requires_grad_() for k, v in make_features().items()}
    losses = losses_of(heads, boxes, gt, features)
    assert all(torch.isfinite(v) for v in losses.values()), losses
    sum(losses.values()).backward()
    assert without_gradient(heads) == []
    assert features["p2_prime"].grad is not None


def test_a_map_that_overflows_does_not_spoil_losses_that_do_not_read_it():
    for heads in (make_heads(**{"MODEL.EFPN.ROUTING": "none"}), make_heads()):
        features = make_features()
        features["p2_prime"] = (features["p2_prime"] / 0).requires_grad_()
        losses = losses_of(heads, LARGE, LARGE, features)
        assert all(torch.isfinite(v) for v in losses.values())


def test_small_masks_are_made_from_p2_prime_in_the_order_of_the_boxes():
    heads = make_heads(mask=True)
    found = detect(heads, MIXED)
    features = make_features()
    for i, x in enumerate(found):
        for box, label, mask in zip(x.pred_boxes.tensor, x.pred_classes, x.pred_masks, strict=True):
            small = small_head(box.tolist())
            names = ["p2_prime"] if small else ["p2", "p3", "p4", "p5"]
            pooler = heads.small_mask_pooler if small else heads.mask_pooler
            head = heads.small_mask_head if small else heads.mask_head
            maps = [features[k][i : i + 1] for k in names]
            with torch.no_grad():
                logits = head.layers(pooler(maps, [Boxes(box[None])]))
            assert torch.allclose(mask[0], logits[0, label].sigmoid(), atol=1e-5)
    assert sum(small_head(b.tolist()) for x in found for b in x.pred_boxes.tensor) > 0


def test_duplicates_are_scored_by_both_heads_in_training():
    heads = make_heads(**{"MODEL.EFPN.ROUTING": "duplicate"})
    features = {k: v.requires_grad_() for k, v in make_features().items()}
    sum(losses_of(heads, SMALL, SMALL, features).values()).backward()
    assert features["p2"].grad.any()
    assert features["p2_prime"].grad.any()


@pytest.mark.parametrize("routing", ["reassign", "duplicate"])
def test_predicted_boxes_can_train_the_mask_head(routing):
    heads = make_heads(
        mask=True,
        **{"MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": True, "MODEL.EFPN.ROUTING": routing},
    )
    seen = []
    for pooler in (heads.mask_pooler, heads.small_mask_pooler):
        pooler.register_forward_pre_hook(lambda _, args: seen.extend(b.tensor for b in args[1]))
    losses = losses_of(heads, MIXED, MIXED)
    assert torch.isfinite(losses["loss_mask"])
    given = torch.tensor([box for per_image in MIXED for box in per_image], dtype=torch.float32)
    used = torch.cat(seen)
    assert len(used) > 0
    assert not (used[:, None] == given[None]).all(dim=-1).any(), "a proposal was not replaced"


def test_gradients_of_p2_prime_are_the_mean_over_the_stages_of_a_cascade():
    """As Detectron2 scales those of the stock levels."""
    heads = make_heads(cascade=True).train()
    boxes = make_proposals(SMALL)
    grads = []
    for stages in (3, 1):
        heads.num_cascade_stages = stages
        features = {k: v.requires_grad_() for k, v in make_features().items()}
        maps = [features[k] for k in heads.box_in_features]
        with EventStorage():
            scores, deltas = heads._run_stage(maps, boxes, 1)
        (scores.sum() + deltas.sum()).backward()
        grads.append(features["p2_prime"].grad)
    assert grads[0].any()
    assert torch.allclose(grads[0] * 3, grads[1], rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_do_not_round_the_boxes(dtype):
    """At x = 1300 px the steps of half precision are 1 and 8 px."""
    heads = make_heads()
    ramp = torch.zeros(1, CHANNELS, 8, 700)
    ramp[:] = torch.arange(700.0) % 64
    box = [Boxes(torch.tensor([[1283.4, 3.0, 1288.4, 8.0]]))]
    exact = heads._pool_small(heads.small_box_pooler, ramp, box)
    half = heads._pool_small(heads.small_box_pooler, ramp.to(dtype), box)
    assert half.dtype == dtype
    assert torch.allclose(half.float(), exact, atol=0.3)


def test_traced_heads_take_another_number_of_boxes():
    heads = make_heads().eval()

    class Wrapper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = heads

        def forward(self, boxes, *maps):
            proposals = [Instances(SIZE)]
            proposals[0].proposal_boxes = Boxes(boxes)
            features = dict(zip(STRIDES, maps, strict=True))
            routes = heads._route([proposals[0].proposal_boxes])
            return heads._predict(features, [proposals[0].proposal_boxes], routes)

    maps = [v[:1] for v in make_features().values()]
    few, many = (torch.tensor(sum(b, []), dtype=torch.float32) for b in (LARGE, MIXED))
    with torch.no_grad():
        traced = torch.jit.trace(Wrapper(), (few[:2], *maps), check_trace=False)
        for value, expected in zip(traced(many, *maps), Wrapper()(many, *maps), strict=True):
            assert len(value) == 5
            assert torch.allclose(value, expected, atol=1e-5)


def test_the_share_of_small_boxes_is_logged():
    heads = make_heads(**{"MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": False})
    targets = [training_input(per_image, size=SIZE)["instances"] for per_image in MIXED]
    with EventStorage() as storage:
        heads.train()(None, make_features(), make_proposals(MIXED), targets)
        assert storage.latest()["roi_head/small_box_share"][0] == pytest.approx(3 / 5)


def build_error(**options: object) -> str:
    with pytest.raises((ValueError, KeyError)) as error:
        make_heads(**options)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_mistakes_are_one_clear_sentence():
    assert "SMALL_BOX_SIZE is 0.0" in build_error(**{"MODEL.EFPN.SMALL_BOX_SIZE": 0.0})
    assert "SMALL_BOX_SIZE is -5.0" in build_error(**{"MODEL.EFPN.SMALL_BOX_SIZE": -5.0})
    assert "ROUTER is 'best'" in build_error(**{"MODEL.EFPN.ROUTER": "best"})
    assert "ROUTING is 'both'" in build_error(**{"MODEL.EFPN.ROUTING": "both"})
    message = build_error(**{"MODEL.ROI_HEADS.IN_FEATURES": ["p1", "p2"]})
    assert "MODEL.ROI_HEADS.IN_FEATURES reads p1, but the backbone returns only p2_prime" in message
    assert "to EFPNRPN" in build_error(
        **{"MODEL.EFPN.RPN_ON_P2_PRIME": True, "MODEL.PROPOSAL_GENERATOR.NAME": "RPN"}
    )
    message = build_error(cascade=True, **{"MODEL.EFPN.ROUTING": "duplicate"})
    assert "MODEL.EFPN.ROUTING to reassign or none" in message


def test_a_backbone_without_p2_prime_is_named():
    cfg = tiny_config()
    shapes = {k: ShapeSpec(channels=CHANNELS, stride=s) for k, s in STRIDES.items()}
    del shapes["p2_prime"]
    with pytest.raises(
        ValueError,
        match="reads p2_prime, but .* build_resnet_efpn_backbone",
    ):
        build_roi_heads(cfg, shapes)
