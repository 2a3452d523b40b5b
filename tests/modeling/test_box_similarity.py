"""Similarities of boxes, and the labels that RPN and RetinaNet give by them."""

import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from efpn_d2.engine import EFPNTrainer
from efpn_d2.modeling.box_similarity import (
    Similarity,
    pairwise_nwd,
    pairwise_simd,
    similarity_settings,
)
from efpn_d2.modeling.label_assignment import SimilarityAssigner
from tests.modeling.helpers import tiny_config, training_input

pytestmark = pytest.mark.fast

FASTER = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_EFPN_1x.yaml"
KEY = "MODEL.EFPN.SIMILARITY"
NWD = (KEY, "nwd", f"{KEY}_CONSTANTS", [12.8])
SIMD = (KEY, "simd", f"{KEY}_CONSTANTS", [6.0, 4.5])
SLIM = ("MODEL.EFPN.PRESET", "slim", "MODEL.EFPN.RPN_ON_P2_PRIME", True)
FUNCTIONS = {
    "nwd": lambda a, b: pairwise_nwd(a, b, 12.8),
    "simd": lambda a, b: pairwise_simd(a, b, 6.0, 4.5),
}
both = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def build(name=FASTER, *opts):
    cfg = tiny_config(name)
    cfg.merge_from_list(list(opts))
    torch.manual_seed(0)
    return build_model(cfg)


def random_boxes(count, seed=0, side=40.0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 60
    return torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * side], 1)


def one_image(boxes, size=(64, 96)):
    return training_input(boxes, size=size)["instances"]


def test_nwd_by_hand():
    boxes = torch.tensor([[0.0, 0, 4, 4], [3, 4, 7, 8], [0, 0, 10, 12]])
    # Centres (2, 2) and (5, 6); then (5, 6) with sides that differ by 6 and 8.
    expected = [1, math.exp(-5 / 10), math.exp(-math.sqrt(25 + 9 + 16) / 10)]
    assert pairwise_nwd(boxes[:1], boxes, 10.0)[0].tolist() == pytest.approx(expected)


def test_simd_by_hand():
    boxes = torch.tensor([[0.0, 0, 4, 4], [3, 4, 7, 8], [0, 0, 12, 4]])
    moved = math.hypot(6 * 3 / 8, 4.5 * 4 / 8)
    wider = 6 * 4 / 16 + 6 * 8 / 16  # location and shape, both in x alone
    expected = [1, math.exp(-moved), math.exp(-wider)]
    assert pairwise_simd(boxes[:1], boxes, 6.0, 4.5)[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_loop_over_pairs_agrees(name):
    first, second = random_boxes(7).double(), random_boxes(9, seed=1).double()
    found = FUNCTIONS[name](first, second)
    for i, a in enumerate(first.tolist()):
        for j, b in enumerate(second.tolist()):
            (xa, ya, wa, ha), (xb, yb, wb, hb) = (
                ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1) for x1, y1, x2, y2 in (a, b)
            )
            if name == "nwd":
                squared = (xa - xb) ** 2 + (ya - yb) ** 2 + ((wa - wb) ** 2 + (ha - hb) ** 2) / 4
                distance = math.sqrt(squared) / 12.8
            else:
                x, y = 6.0 / (wa + wb), 4.5 / (ha + hb)
                distance = math.hypot((xa - xb) * x, (ya - yb) * y)
                distance += math.hypot((wa - wb) * x, (ha - hb) * y)
            assert found[i, j].item() == pytest.approx(math.exp(-distance), rel=1e-9)


@both
def test_equal_boxes_have_1_and_the_order_of_two_does_not_matter(function):
    first, second = random_boxes(6), random_boxes(8, seed=1)
    assert torch.equal(function(first, first).diagonal(), torch.ones(6))
    torch.testing.assert_close(function(first, second), function(second, first).T)
    assert ((function(first, second) >= 0) & (function(first, second) < 1)).all()


def test_only_simd_is_the_same_at_another_scale():
    first, second = random_boxes(6), random_boxes(8, seed=1)
    simd, nwd = FUNCTIONS["simd"], FUNCTIONS["nwd"]
    torch.testing.assert_close(simd(first, second), simd(3 * first, 3 * second))
    torch.testing.assert_close(nwd(first, second), pairwise_nwd(3 * first, 3 * second, 3 * 12.8))


@both
def test_boxes_without_area_and_no_boxes(function):
    flat = torch.tensor([[5.0, 5, 5, 5], [5, 5, 9, 5], [5, 5, 5, 9], [90000, 0, 90000, 0]])
    found = function(flat, torch.cat([flat, random_boxes(4)]))
    assert found.isfinite().all()
    assert found.diagonal().tolist() == [1, 1, 1, 1]
    assert function(flat[:0], flat).shape == (0, 4)
    assert function(flat, flat[:0]).shape == (4, 0)


@pytest.mark.parametrize("constant", [0.0, -1.0, float("nan"), float("inf")])
def test_constants_are_positive(constant):
    boxes = random_boxes(2)
    with pytest.raises(ValueError, match=str(constant)):
        pairwise_nwd(boxes, boxes, constant)
    with pytest.raises(ValueError, match=str(constant)):
        pairwise_simd(boxes, boxes, 1.0, constant)


# Labels.


@pytest.mark.parametrize("opts", [(), ("MODEL.RPN.BOUNDARY_THRESH", 0)], ids=["", "bounds"])
def test_by_iou_the_rpn_labels_as_the_stock_one(opts):
    ours = build(FASTER, *opts).proposal_generator
    assert ours.assigner is None
    images = [one_image([[4, 4, 12, 14], [30, 30, 60, 60]]), one_image([])]
    shapes = [(64 // s, 96 // s) for s in ours.anchor_generator.strides]
    anchors = ours.anchor_generator([torch.zeros(1, 1, *shape) for shape in shapes])
    stock = super(type(ours), ours)
    torch.manual_seed(1)
    found = ours.label_and_sample_anchors(anchors, images)
    torch.manual_seed(1)
    expected = stock.label_and_sample_anchors(anchors, images)
    for ones, others in zip(found, expected, strict=True):
        assert all(map(torch.equal, ones, others))


def test_by_iou_retinanet_labels_as_the_stock_one():
    ours = build(RETINANET)
    assert ours.assigner is None
    anchors = [Boxes(random_boxes(50)), Boxes(random_boxes(20, seed=1))]
    images = [one_image([[4, 4, 12, 14], [30, 30, 60, 60]]), one_image([])]
    found = ours.label_anchors(anchors, images)
    expected = super(type(ours), ours).label_anchors(anchors, images)
    for ones, others in zip(found, expected, strict=True):
        assert all(map(torch.equal, ones, others))


def slow_labels(quality, low, high):
    """Of each anchor, by loops: label and object."""
    best = quality.argmax(dim=0).tolist()
    labels = []
    for j, i in enumerate(best):
        value = quality[i, j].item()
        labels.append(1 if value >= high else -1 if value >= low else 0)
        if any(quality[k, j] == quality[k].max() for k in range(len(quality))):
            labels[-1] = 1
    return labels, best


@pytest.mark.parametrize("name", FUNCTIONS)
def test_labels_are_those_of_loops(name):
    constants = {"nwd": (12.8,), "simd": (6.0, 4.5)}[name]
    anchors, objects = random_boxes(300, seed=2), random_boxes(5)
    labels, matches = SimilarityAssigner(Similarity(name, constants, (0.2, 0.4)))(
        Boxes(objects), Boxes(anchors)
    )
    expected = slow_labels(FUNCTIONS[name](objects, anchors), 0.2, 0.4)
    assert (labels.tolist(), matches.tolist()) == expected
    assert {-1, 0, 1} == set(labels.tolist())


def test_labels_of_both_detectors():
    assigner = SimilarityAssigner(Similarity("nwd", (10.0,), (0.3, 0.7)))
    anchors = Boxes(
        torch.tensor([[-1.0, 0, 9, 10], [0, 0, 10, 10], [6, 0, 16, 10], [50, 0, 60, 9]])
    )
    image = one_image([[40, 40, 44, 44], [0, 0, 10, 10]])
    image.gt_boxes = Boxes(torch.tensor([[50.0, 0, 58, 10], [0, 0, 10, 10]]))
    image.gt_classes = torch.tensor([2, 0])
    # Distances are 1, 0, 6 and, of the other object, 1.22.
    labels, boxes = assigner.label_for_rpn(anchors, image, -1)
    assert labels.tolist() == [1, 1, -1, 1]
    assert torch.equal(boxes, image.gt_boxes.tensor[[1, 1, 1, 0]])
    labels, _ = assigner.label_for_rpn(anchors, image, 0)
    assert labels.tolist() == [-1, 1, -1, 1]
    classes, boxes = assigner.label_for_retinanet(anchors, image, 3)
    assert classes.tolist() == [0, 0, -1, 2]
    empty = one_image([])
    labels, boxes = assigner.label_for_rpn(anchors, empty, -1)
    assert labels.tolist() == [0] * 4 and boxes.shape == (4, 4)
    assert assigner.label_for_retinanet(anchors, empty, 3)[0].tolist() == [3] * 4
    labels, boxes = assigner.label_for_rpn(Boxes(torch.zeros(0, 4)), image, -1)
    assert labels.shape == (0,) and boxes.shape == (0, 4)


def test_an_object_far_from_all_anchors_makes_none_of_them_positive():
    assigner = SimilarityAssigner(Similarity("nwd", (1.0,), (0.3, 0.7)))
    objects = Boxes(torch.tensor([[0.0, 0, 10, 10], [0, 0, 5000, 5000]]))
    anchors = Boxes(torch.tensor([[0.0, 0, 10, 10], [40, 0, 50, 10]]))
    assert assigner(objects, anchors)[0].tolist() == [1, 0]


@pytest.mark.parametrize("opts", [NWD, SIMD], ids=["nwd", "simd"])
@pytest.mark.parametrize("extra", [(), SLIM], ids=["", "slim"])
def test_a_tiny_object_gets_more_positive_anchors(opts, extra):
    sizes = ("MODEL.ANCHOR_GENERATOR.SIZES", [[6], [12], [24], [48], [96]])
    sizes = (*sizes, "MODEL.EFPN.P2_PRIME_ANCHOR_SIZES", [4])
    if opts is SIMD:
        opts = (*SIMD[:3], [1.2, 1.1])  # of images as small as these
    images = [one_image([[21, 21, 27, 27]])]
    counts = []
    for own in ((), opts):
        model = build(FASTER, *sizes, *extra, *own)
        rpn = model.proposal_generator
        strides = rpn.anchor_generator.strides
        maps = [torch.zeros(1, 1, -(-64 // s), -(-96 // s)) for s in strides]
        anchors = rpn.anchor_generator(maps)
        (labels,), (boxes,) = rpn.label_and_sample_anchors(anchors, images)
        counts.append((labels == 1).sum().item())
        assert torch.equal(boxes[labels == 1].unique(dim=0), images[0].gt_boxes.tensor)
        assert (labels >= 0).sum() == 256
    assert counts[1] > counts[0]


@pytest.mark.parametrize("opts", [NWD, SIMD], ids=["nwd", "simd"])
@pytest.mark.parametrize(
    ("name", "extra"),
    [(FASTER, ()), (FASTER, SLIM), (RETINANET, ())],
    ids=["rpn", "slim", "retina"],
)
def test_a_training_step_is_finite(name, extra, opts):
    model = build(name, *extra, *opts).train()
    with EventStorage():
        losses = model([training_input([[4, 4, 10, 10], [30, 20, 60, 50]]), training_input([])])
    sum(losses.values()).backward()
    assert all(x.isfinite() for x in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_weights_and_inference_do_not_know_it():
    plain, other = build(), build(FASTER, *NWD)
    assert plain.state_dict().keys() == other.state_dict().keys()
    other.load_state_dict(plain.state_dict())
    image = [training_input([])]
    with torch.no_grad():
        found = [model.eval()(image)[0]["instances"] for model in (plain, other)]
    assert torch.equal(*(x.pred_boxes.tensor for x in found))
    assert isinstance(found[0], Instances)


# Configs.


def test_published_thresholds_unless_there_are_own():
    cfg = tiny_config(FASTER)
    assert similarity_settings(cfg, "rpn") is None
    cfg.merge_from_list([*SIMD])
    assert similarity_settings(cfg, "rpn") == ("simd", (6.0, 4.5), (0.3, 0.7))
    assert similarity_settings(cfg, "retinanet").thresholds == (0.4, 0.5)
    cfg.merge_from_list([f"{KEY}_THRESHOLDS", [0.2, 0.6]])
    assert similarity_settings(cfg, "rpn").thresholds == (0.2, 0.6)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ((KEY, "giou"), f"{KEY} is giou"),
        ((KEY, "nwd"), rf"{KEY}_CONSTANTS is \[\], .*1"),
        ((KEY, "simd", f"{KEY}_CONSTANTS", [6.0]), rf"{KEY}_CONSTANTS is \[6.0\], .*2"),
        ((*NWD[:3], [0.0]), rf"{KEY}_CONSTANTS .*\[0.0\]"),
        ((*NWD, f"{KEY}_THRESHOLDS", [0.7, 0.3]), rf"{KEY}_THRESHOLDS is \[0.7, 0.3\]"),
        ((*NWD, f"{KEY}_THRESHOLDS", [0.5]), rf"{KEY}_THRESHOLDS is \[0.5\]"),
        ((f"{KEY}_CONSTANTS", [12.8]), rf"{KEY}_CONSTANTS is \[12.8\]"),
        ((f"{KEY}_THRESHOLDS", [0.3, 0.7]), rf"{KEY}_THRESHOLDS is \[0.3, 0.7\]"),
    ],
)
@pytest.mark.parametrize("name", [FASTER, RETINANET])
def test_mistakes_name_key_and_value(name, opts, message):
    with pytest.raises(ValueError, match=message):
        build(name, *opts)


@pytest.mark.parametrize(
    ("name", "key", "value", "wanted"),
    [
        (FASTER, "MODEL.PROPOSAL_GENERATOR.NAME", "RPN", "EFPNRPN"),
        (FASTER, "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals", "EFPNRPN"),
        (RETINANET, "MODEL.META_ARCHITECTURE", "RetinaNet", "EFPNRetinaNet"),
    ],
)
def test_what_would_not_read_it_is_refused(name, key, value, wanted):
    cfg = tiny_config(name)
    cfg.merge_from_list([*NWD, key, value])
    with pytest.raises(ValueError, match=f"{KEY} is nwd, .*{key}.* {value}.*{wanted}"):
        EFPNTrainer.build_model(cfg)
