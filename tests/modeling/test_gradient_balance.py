"""DCLoss in RPN, box heads and RetinaNet, with P'2 and without."""

import pickle

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from fvcore.nn import sigmoid_focal_loss, smooth_l1_loss
from torch.nn import functional as F

from efpn_d2.checkpoint import EFPNCheckpointer
from efpn_d2.engine import EFPNTrainer
from efpn_d2.modeling.roi_heads.balanced_output import balance_predictors
from tests.modeling.helpers import (
    WIDE_ENOUGH_FOR_BF16,
    tiny_config,
    training_input,
    without_gradient,
)
from tests.modeling.roi_heads.test_efpn_roi_heads import LARGE, MIXED, SMALL, make_heads
from tests.modeling.roi_heads.test_ohem import losses_of as ohem_losses_of
from tests.modeling.roi_heads.test_ohem import make_ohem_heads

pytestmark = pytest.mark.fast

FASTER = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"
CASCADE = "COCO-Detection/cascade_rcnn_R_50_EFPN_3x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_EFPN_1x.yaml"
MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_EFPN_1x.yaml"

WITHOUT_P2_PRIME = (
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
    *("MODEL.EFPN.ROUTING", "none"),
)
RETINANET_WITHOUT_P2_PRIME = (
    *("MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone"),
    *("MODEL.RETINANET.IN_FEATURES", ["p3", "p4", "p5", "p6", "p7"]),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[x, 1.25 * x, 1.6 * x] for x in (8, 16, 32, 64, 128)]),
)
DETECTORS = [
    (FASTER, ()),
    (FASTER, WITHOUT_P2_PRIME),
    (FASTER, ("MODEL.EFPN.ROUTING", "duplicate")),
    (FASTER, ("MODEL.RPN.BBOX_REG_LOSS_TYPE", "giou", "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True)),
    (CASCADE, ()),
    (CASCADE, WITHOUT_P2_PRIME),
    (MASK, ()),
    (MASK, WITHOUT_P2_PRIME),
    (RETINANET, ()),
    (RETINANET, RETINANET_WITHOUT_P2_PRIME),
]
ON = ("MODEL.EFPN_BS.DCLOSS_ENABLED", True)
BY_HAND = (*ON, "MODEL.EFPN_BS.DCLOSS_ALPHA", 1.0, "MODEL.EFPN_BS.DCLOSS_SIZE_BINS", [8])
OBJECTS = [[[4, 4, 12, 14], [2, 2, 60, 60], [30, 30, 37, 36]], [[10, 20, 34, 40], [1, 1, 7, 8]]]


def build(name=FASTER, *opts):
    cfg = tiny_config(name)
    cfg.MODEL.EFPN.SMALL_BOX_SIZE = 32.0
    cfg.merge_from_list(list(opts))
    torch.manual_seed(0)
    return build_model(cfg)


def losses_of(model, objects=OBJECTS, size=(64, 96)):
    torch.manual_seed(1)
    images = [training_input(x, size=size, seed=i) for i, x in enumerate(objects)]
    with EventStorage() as storage:
        losses = model.train()(images)
    model.zero_grad(set_to_none=True)
    sum(losses.values()).backward()
    return losses, storage


@pytest.mark.parametrize(("name", "opts"), DETECTORS)
def test_alpha_0_is_the_plain_loss_bitwise(name, opts):
    """So are gradients and first weights."""
    if name == RETINANET:
        # TorchScript computes the gradients of the focal loss otherwise from its second use on.
        losses_of(build(name, *opts))
    plain, balanced = build(name, *opts), build(name, *opts, *ON, "MODEL.EFPN_BS.DCLOSS_ALPHA", 0.0)
    expected, found = losses_of(plain)[0], losses_of(balanced)[0]
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
        assert found[key].dtype == value.dtype, key
    parameters = dict(balanced.named_parameters())
    for key, value in plain.named_parameters():
        assert torch.equal(parameters[key], value), key
        if value.requires_grad:
            assert torch.equal(parameters[key].grad, value.grad), key


@pytest.mark.parametrize("name", [FASTER, CASCADE, MASK, RETINANET])
def test_a_larger_alpha_moves_the_losses_of_boxes_alone(name):
    plain, balanced = build(name), build(name, *ON, "MODEL.EFPN_BS.DCLOSS_ALPHA", 1.0)
    # Untrained heads hardly tell sizes apart, so let them.
    for key, value in plain.named_parameters():
        if any(part in key for part in ("cls_score", "objectness_logits")):
            torch.nn.init.normal_(value, std=0.1)
    balanced.load_state_dict(plain.state_dict())
    expected, found = losses_of(plain)[0], losses_of(balanced)[0]
    moved = {key for key, value in expected.items() if not torch.equal(found[key], value)}
    # Plain L1, the default of Detectron2, has the same slope at any distance: all weights are 1.
    assert moved == {key for key in expected if "cls" in key}


@pytest.mark.parametrize(("name", "opts"), DETECTORS)
def test_only_its_own_state_is_new(name, opts):
    plain, balanced = build(name, *opts).state_dict(), build(name, *opts, *ON).state_dict()
    assert not any("gradient_balance" in key for key in plain)
    own = balanced.keys() - plain.keys()
    assert {k for k in own if "gradient_balance" not in k} == set()
    assert {k: v for k, v in balanced.items() if k not in own}.keys() == plain.keys()
    ends = {".".join(key.split(".")[-2:]) for key in own}
    state = ("edges", "gradient_norms", "updates")
    assert ends == {f"{t}.{k}" for t in ("cls", "box") for k in state}
    if name != RETINANET:
        places = {key.split(".gradient_balance")[0] for key in own}
        heads = (
            ["box_predictor"]
            if opts == WITHOUT_P2_PRIME
            else [
                "box_predictor",
                "small_box_predictor",
            ]
        )
        stages = [".0", ".1", ".2"] if name == CASCADE else [""]
        expected = {f"roi_heads.{head}{stage}" for head in heads for stage in stages}
        assert places == {"proposal_generator", *expected}


@pytest.mark.parametrize(("name", "opts"), DETECTORS)
@pytest.mark.parametrize("objects", [[[], []], [[], SMALL[0]], LARGE])
def test_empty_images_and_one_sided_bins_stay_finite(name, opts, objects):
    model = build(name, *opts, *ON)
    for batch in (objects, [[], []], objects):
        losses, _ = losses_of(model, batch)
        assert all(v.isfinite() for v in losses.values()), losses
    assert without_gradient(model) == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert all(v.isfinite().all() for v in model.state_dict().values())


def weighted(losses, gradients, sizes, edge=8):
    """Sum of the losses with alpha 1 and two bins of a first batch, sample by sample."""
    small = sizes < edge
    means = [gradients[small].mean(), gradients[~small].mean()]
    mean = sum(means) / 2
    limited = [min(max((mean / x).item(), 0.5), 2.0) for x in means]
    weights = torch.tensor([limited[0] if s else limited[1] for s in small.tolist()])
    return (losses * weights / weights.mean()).sum()


def slopes(deltas, targets, beta):
    return ((deltas - targets).abs() / beta).clamp(max=1).sum(1)


def matched_boxes(count):
    """Boxes and the objects they are matched to, every second of 4 px."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 40
    side = torch.tensor([4.0, 20.0]).repeat(count)[:count, None]
    objects = torch.cat([corner, corner + side], dim=1)
    return objects + torch.rand(count, 4, generator=generator) - 0.5, objects, side[:, 0]


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("agnostic", [False, True])
def test_losses_of_the_box_head_by_sample(sigmoid, agnostic):
    options = dict(zip(BY_HAND[::2], BY_HAND[1::2], strict=True))
    options["MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA"] = 1.0
    options["MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT"] = 3.0
    options["MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE"] = sigmoid
    options["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"] = agnostic
    predictor = make_heads(**options).box_predictor
    boxes, objects, sizes = matched_boxes(6)
    classes = torch.tensor([0, 1, 2, 1, 3, 3])  # The last two are background.
    torch.manual_seed(0)
    scores, deltas = torch.randn(6, 4), torch.randn(6, 4 if agnostic else 12)
    proposals = []
    for rows in (slice(0, 4), slice(4, 6)):
        x = Instances((64, 96))
        x.proposal_boxes, x.gt_classes = Boxes(boxes[rows]), classes[rows]
        # An image without objects has no field for them.
        if rows.start == 0:
            x.gt_boxes = Boxes(objects[rows])
        proposals.append(x)
    with EventStorage():
        found = predictor.losses((scores, deltas), proposals)

    if sigmoid:
        y = F.one_hot(classes, 4)[:, :3].float()
        cls = F.binary_cross_entropy_with_logits(scores[:, :3], y, reduction="none").sum(1)
        norms = (scores[:, :3].sigmoid() - y).abs().sum(1)
    else:
        cls = F.cross_entropy(scores, classes, reduction="none")
        norms = (scores.softmax(1) - F.one_hot(classes, 4)).abs().sum(1)
    expected = (weighted(cls[:4], norms[:4], sizes[:4]) + cls[4:].sum()) / 6
    assert found["loss_cls"].item() == pytest.approx(expected.item(), rel=1e-5)

    own = deltas if agnostic else deltas.view(6, 3, 4)[range(4), classes[:4]]
    targets = predictor.box2box_transform.get_deltas(boxes[:4], objects[:4])
    box = smooth_l1_loss(own[:4], targets, 1.0).sum(1)
    expected = 3.0 * weighted(box, slopes(own[:4], targets, 1.0), sizes[:4]) / 6
    assert found["loss_box_reg"].item() == pytest.approx(expected.item(), rel=1e-5)


def dense_case(classes):
    """Two images, two levels of 3 and 5 anchors; labels, deltas, and which are positives."""
    boxes, objects, sizes = matched_boxes(8)
    torch.manual_seed(0)
    return (
        [Boxes(boxes[:3]), Boxes(boxes[3:])],
        torch.tensor(classes),
        [torch.randn(2, 3, 4), torch.randn(2, 5, 4)],
        [objects, objects.flip(0)],
        (boxes.repeat(2, 1), torch.cat([objects, objects.flip(0)])),
        torch.cat([sizes, sizes.flip(0)]),
    )


def test_losses_of_the_rpn_by_sample():
    rpn = build(FASTER, *BY_HAND, "MODEL.RPN.SMOOTH_L1_BETA", 1.0).proposal_generator
    anchors, labels, deltas, gt_boxes, (boxes, objects), sizes = dense_case(
        [[1, 1, 0, 0, -1, 1, 0, 1], [0, 0, 1, -1, 1, 1, 0, 0]]
    )
    logits = [torch.randn(2, 3), torch.randn(2, 5)]
    with EventStorage():
        found = rpn.losses(anchors, logits, list(labels), deltas, gt_boxes)
    label, logit, delta = labels.flatten(), torch.cat(logits, 1).flatten(), torch.cat(deltas, 1)
    rows, delta = label == 1, delta.reshape(-1, 4)
    normalizer = 2 * rpn.batch_size_per_image
    cls = F.binary_cross_entropy_with_logits(logit, label.clamp(0).float(), reduction="none")
    norms = 1 - logit.sigmoid()
    expected = weighted(cls[rows], norms[rows], sizes[rows]) + cls[label == 0].sum()
    assert found["loss_rpn_cls"].item() == pytest.approx(expected.item() / normalizer, rel=1e-5)
    targets = rpn.box2box_transform.get_deltas(boxes[rows], objects[rows])
    box = smooth_l1_loss(delta[rows], targets, 1.0).sum(1)
    expected = weighted(box, slopes(delta[rows], targets, 1.0), sizes[rows])
    assert found["loss_rpn_loc"].item() == pytest.approx(expected.item() / normalizer, rel=1e-5)


def test_losses_of_retinanet_by_sample():
    model = build(RETINANET, *BY_HAND, "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", 1.0)
    anchors, labels, deltas, gt_boxes, (boxes, objects), sizes = dense_case(
        [[0, 2, 3, 3, -1, 1, 3, 1], [3, 3, 0, -1, 2, 1, 3, 3]]
    )
    logits = [torch.randn(2, 3, 3), torch.randn(2, 5, 3)]
    with EventStorage():
        found = model.losses(anchors, logits, list(labels), deltas, gt_boxes)
    label, logit = labels.flatten(), torch.cat(logits, 1).reshape(-1, 3)
    delta, valid = torch.cat(deltas, 1).reshape(-1, 4), label >= 0
    y = F.one_hot(label.clamp(0), 4)[:, :3].float()
    leaf = logit.clone().requires_grad_()
    cls = sigmoid_focal_loss(leaf, y, model.focal_loss_alpha, model.focal_loss_gamma).sum(1)
    norms = torch.autograd.grad(cls.sum(), leaf)[0].abs().sum(1)
    rows = valid & (label < 3)
    expected = weighted(cls[rows], norms[rows], sizes[rows]) + cls[label == 3].sum()
    assert found["loss_cls"].item() == pytest.approx(
        expected.item() / model.loss_normalizer, rel=1e-5
    )
    targets = model.box2box_transform.get_deltas(boxes[rows], objects[rows])
    box = smooth_l1_loss(delta[rows], targets, 1.0).sum(1)
    expected = weighted(box, slopes(delta[rows], targets, 1.0), sizes[rows])
    assert found["loss_box_reg"].item() == pytest.approx(
        expected.item() / model.loss_normalizer, rel=1e-5
    )


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        (FASTER, ["rpn_cls", "rpn_box", "box_head_cls", "box_head_box"]),
        (RETINANET, ["retinanet_cls", "retinanet_box"]),
    ],
)
def test_shares_of_each_head_are_logged(name, heads):
    _, storage = losses_of(build(name, *ON))
    logged = {k: v for k, (v, _) in storage.latest().items()}
    for head in heads:
        for when in ("share_before", "share_after"):
            place = f"gradient_balance/{head}/{when}/"
            shares = [v for k, v in logged.items() if k.startswith(place)]
            assert len(shares) == 4
            assert sum(shares) == pytest.approx(1.0)


def test_each_stage_of_a_cascade_logs_its_own():
    _, storage = losses_of(build(CASCADE, *ON))
    for stage in range(3):
        assert f"stage{stage}/gradient_balance/box_head_cls/share_after/0-8" in storage.latest()


@pytest.mark.parametrize("boxes", [MIXED, SMALL, [[], []]])
def test_heads_trained_by_hard_examples_have_a_state_of_their_own(boxes):
    heads = make_ohem_heads(**dict([ON]))
    losses = ohem_losses_of(heads, boxes, boxes)
    assert all(v.isfinite() for v in losses.values())
    sum(losses.values()).backward()
    assert without_gradient(heads) == []
    assert heads.box_predictor.gradient_balance["cls"].updates.sum() == 0
    updates = heads.small_box_predictor.gradient_balance["cls"].updates.sum()
    assert (updates > 0) == any(boxes)


@pytest.mark.parametrize(
    "precision", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", [FASTER, CASCADE, RETINANET])
def test_mixed_precision(precision, name):
    model = build(name, *ON)
    with torch.autocast("cpu", dtype=precision):
        losses, _ = losses_of(model, size=WIDE_ENOUGH_FOR_BF16)
    assert all(v.dtype == torch.float32 and v.isfinite() for v in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    states = [v for k, v in model.state_dict().items() if k.endswith("gradient_norms")]
    assert all(v.dtype == torch.float32 and v.isfinite().all() for v in states)


@pytest.mark.parametrize("suffix", ["pth", "pkl"])
@pytest.mark.parametrize(("name", "opts"), [(FASTER, ()), (CASCADE, ()), (RETINANET, ())])
def test_a_file_without_the_state_loads_as_before(name, opts, suffix, tmp_path, caplog):
    plain, balanced = build(name, *opts), build(name, *opts, *ON)
    path = tmp_path / f"model.{suffix}"
    weights = {k: v + 1 for k, v in plain.state_dict().items()}
    if suffix == "pth":
        torch.save({"model": weights}, path)
    else:
        weights = {k: v.numpy() for k, v in weights.items()}
        path.write_bytes(
            pickle.dumps({"model": weights, "__author__": "t", "matching_heuristics": True})
        )
    for checkpointer in (DetectionCheckpointer, EFPNCheckpointer):
        caplog.clear()
        checkpointer(balanced).load(str(path))
        assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]
    for key, value in balanced.state_dict().items():
        if "gradient_balance" in key:
            assert key.endswith("edges") == bool(value.any()), key
        else:
            assert torch.equal(value, torch.as_tensor(weights[key])), key


def test_small_heads_start_from_a_stock_file(tmp_path):
    """Though the state of DCLoss, which the file has not, is not missed."""
    stock = build(FASTER, *WITHOUT_P2_PRIME)
    torch.save({"model": stock.state_dict()}, tmp_path / "stock.pth")
    model = build(FASTER, *ON)
    with torch.no_grad():
        model.roi_heads.small_box_predictor.cls_score.weight.zero_()
    EFPNCheckpointer(model).load(str(tmp_path / "stock.pth"))
    copied = model.roi_heads.small_box_predictor.cls_score.weight
    assert torch.equal(copied, stock.roi_heads.box_predictor.cls_score.weight)


def test_a_file_with_the_state_fits_a_detector_without(tmp_path, caplog):
    balanced, plain = build(FASTER, *ON), build(FASTER)
    torch.save({"model": balanced.state_dict()}, tmp_path / "model.pth")
    EFPNCheckpointer(plain).load(str(tmp_path / "model.pth"))
    assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize(
    ("name", "key", "value", "wanted"),
    [
        (FASTER, "MODEL.PROPOSAL_GENERATOR.NAME", "RPN", "EFPNRPN"),
        (FASTER, "MODEL.ROI_HEADS.NAME", "StandardROIHeads", "EFPNROIHeads"),
        (CASCADE, "MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "EFPNCascadeROIHeads"),
        (RETINANET, "MODEL.META_ARCHITECTURE", "RetinaNet", "EFPNRetinaNet"),
    ],
)
def test_heads_that_do_not_know_it_are_named(name, key, value, wanted):
    cfg = tiny_config(name)
    cfg.merge_from_list([*ON, key, value])
    with pytest.raises(ValueError, match=f"{key} {value}: set {key} to {wanted}"):
        EFPNTrainer.build_model(cfg)


def test_half_stock_detectors_are_refused_without_a_trainer_too():
    with pytest.raises(ValueError, match="MODEL.ROI_HEADS.NAME StandardROIHeads"):
        build(FASTER, *ON, "MODEL.ROI_HEADS.NAME", "StandardROIHeads")


def test_a_federated_loss_is_refused():
    fed = ("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True, "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True)
    cfg = tiny_config(FASTER)
    cfg.merge_from_list([*ON, *fed])
    predictor = make_heads().box_predictor
    predictor.use_fed_loss = True
    with pytest.raises(ValueError, match="DCLOSS_ENABLED .*USE_FED_LOSS"):
        balance_predictors({"box_predictor": predictor}, cfg)
