"""Detectors with lazy P'2 find what they find with the dense map."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from efpn_d2.modeling.backbone import PyramidExtension
from efpn_d2.modeling.lazy import LazyP2Prime
from tests.modeling.helpers import tiny_config, training_input

pytestmark = pytest.mark.fast

FASTER = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"
CASCADE = "COCO-Detection/cascade_rcnn_R_50_EFPN_3x.yaml"
MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_EFPN_1x.yaml"
CASCADE_MASK = "COCO-InstanceSegmentation/cascade_mask_rcnn_R_50_EFPN_3x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_EFPN_1x.yaml"


def build(name, lazy, *opts):
    cfg = tiny_config(name)
    cfg.MODEL.EFPN.SMALL_BOX_SIZE = 48.0
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.EFPN.LAZY = lazy
    cfg.MODEL.EFPN.LAZY_TILE_SIDES = [16]
    cfg.MODEL.EFPN.LAZY_DENSE_ABOVE = 100.0
    cfg.merge_from_list(list(opts))
    torch.manual_seed(0)
    return build_model(cfg).eval()


@pytest.fixture
def computed(monkeypatch):
    """Shares of P'2 that were computed, of each pooling."""
    shares = []
    pool = LazyP2Prime.pool

    def record(self, *args):
        result = pool(self, *args)
        shares.append(self.active_share)
        return result

    monkeypatch.setattr(LazyP2Prime, "pool", record)
    return shares


@pytest.mark.parametrize("routing", ["reassign", "duplicate"])
@pytest.mark.parametrize("name", [FASTER, CASCADE, MASK, CASCADE_MASK])
@torch.no_grad()
def test_detections_are_equal(name, routing, computed):
    if "ascade" in name and routing == "duplicate":
        routing = "none"  # a cascade has no duplicates
    sizes = [(96, 160), (128, 64)]
    images = [training_input([], size=size, seed=i) for i, size in enumerate(sizes)]
    dense, lazy = (build(name, x, "MODEL.EFPN.ROUTING", routing)(images) for x in (False, True))
    for a, b in zip(dense, lazy, strict=True):
        a, b = a["instances"], b["instances"]
        assert len(a) == len(b) > 0
        torch.testing.assert_close(b.scores, a.scores, rtol=0, atol=1e-4)
        assert torch.equal(b.pred_classes, a.pred_classes)
        torch.testing.assert_close(b.pred_boxes.tensor, a.pred_boxes.tensor, rtol=0, atol=1e-2)
        if a.has("pred_masks"):
            assert (a.pred_masks == b.pred_masks).float().mean() > 0.999
    assert (computed == []) == (routing == "none")


@pytest.mark.parametrize("name", [FASTER, CASCADE])
@torch.no_grad()
def test_small_proposals_of_low_objectness_are_dropped_where_p2_prime_is_lazy(name, computed):
    images = [training_input([], size=(96, 160))]
    proposals = Instances((96, 160))
    proposals.proposal_boxes = Boxes(
        torch.tensor([[8.0, 8, 16, 16], [80, 40, 90, 50], [0, 0, 90, 90], [120, 70, 130, 80]])
    )
    probability = torch.tensor([0.9, 0.01, 0.01, 0.2])
    proposals.objectness_logits = probability.logit()
    images[0]["proposals"] = proposals
    opts = ("MODEL.EFPN.LAZY_MIN_OBJECTNESS", 0.1, "MODEL.LOAD_PROPOSALS", True)
    opts += ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals")
    opts += ("MODEL.ROI_HEADS.NMS_THRESH_TEST", 1.0)
    dense, lazy = (build(name, x, *opts) for x in (False, True))
    everything = dense(images)[0]["instances"]
    found = lazy(images)[0]["instances"]
    kept = [dict(images[0], proposals=proposals[torch.tensor([True, False, True, True])])]
    expected = dense(kept)[0]["instances"]
    assert len(everything) > len(found) == len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=0, atol=1e-2
    )
    assert 0 < computed[0] < 1


def test_an_objectness_that_is_none_is_refused():
    with pytest.raises(ValueError, match="LAZY_MIN_OBJECTNESS is 1.5"):
        build(FASTER, True, "MODEL.EFPN.LAZY_MIN_OBJECTNESS", 1.5)


@torch.no_grad()
def test_without_a_head_on_p2_prime_nothing_of_it_is_computed(monkeypatch):
    model = build(FASTER, True, "MODEL.EFPN.ROUTING", "none")

    def fail(*args):
        raise AssertionError("the extension ran")

    monkeypatch.setattr(PyramidExtension, "forward", fail)
    monkeypatch.setattr(PyramidExtension, "p2_prime", fail)
    model([training_input([], size=(64, 64))])


@torch.no_grad()
def test_retinanet_reads_all_of_it(caplog):
    outputs = [build(RETINANET, lazy)([training_input([])]) for lazy in (False, True)]
    a, b = (x[0]["instances"] for x in outputs)
    assert torch.equal(a.scores, b.scores)
    assert "the detector reads all of P'2" in caplog.text


@pytest.mark.parametrize("precision", [torch.bfloat16])
@torch.no_grad()
def test_mixed_precision(precision, computed):
    model = build(FASTER, True)
    with torch.autocast("cpu", dtype=precision):
        found = model([training_input([], size=(96, 160))])[0]["instances"]
    assert len(computed) == 1
    assert found.scores.isfinite().all()


@pytest.mark.parametrize("routing", ["reassign", "none"])
@pytest.mark.parametrize("frozen", [False, True])
def test_training_is_untouched(frozen, routing):
    losses = []
    for lazy in (False, True):
        opts = ("MODEL.EFPN.LAZY_MIN_OBJECTNESS", 0.9, "MODEL.EFPN.ROUTING", routing)
        model = build(FASTER, lazy, *opts).train()
        model.backbone.train(not frozen)
        torch.manual_seed(1)
        with EventStorage():
            losses.append(model([training_input([[8, 8, 24, 28]])]))
    assert losses[0].keys() == losses[1].keys()
    for name, loss in losses[0].items():
        torch.testing.assert_close(losses[1][name], loss, rtol=0, atol=1e-5 if frozen else 0)
