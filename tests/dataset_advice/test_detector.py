import numpy as np
import pytest
from detectron2.modeling import build_model

from efpn_d2.dataset_advice.detector import describe_detector
from tests.dataset_advice.helpers import analysis_config
from tests.modeling.helpers import narrow

pytestmark = pytest.mark.fast

RETINANET = "COCO-Detection/retinanet_R_50_EFPN_1x.yaml"


def squares(*sizes):
    return np.array([[0, 0, s, s] for s in sizes], dtype=float)


def test_levels_that_boxes_are_read_from():
    geometry = describe_detector(analysis_config("MODEL.EFPN.SMALL_BOX_SIZE", "56.0"))
    assert geometry.read_levels == ["p2_prime", "p2", "p3", "p4", "p5"]
    boxes = squares(1, 55.9, 56, 111, 113, 223, 225, 447, 449, 3000)
    assert geometry.assign_levels(boxes).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("key", "value"), [("MODEL.EFPN.ROUTING", "none"), ("MODEL.ROI_HEADS.NAME", "StandardROIHeads")]
)
def test_without_a_head_on_p2_prime(key, value):
    geometry = describe_detector(analysis_config(key, value))
    assert geometry.small_box_size is None
    assert geometry.read_levels == ["p2", "p3", "p4", "p5"]
    assert geometry.assign_levels(squares(1, 113, 3000)).tolist() == [0, 1, 3]


def test_anchors_are_those_of_the_model():
    """With P'2 in the RPN; the config's sizes, on its levels, at the first cell."""
    cfg = analysis_config(
        *("MODEL.EFPN.RPN_ON_P2_PRIME", "True", "MODEL.ANCHOR_GENERATOR.OFFSET", "0.5"),
        *("MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu"),
    )
    geometry = describe_detector(cfg)
    assert [level.name for level in geometry.anchors] == ["p2_prime", "p2", "p3", "p4", "p5", "p6"]
    assert [level.stride for level in geometry.anchors] == [2, 4, 8, 16, 32, 64]
    sides = [(level.boxes[0, 2:] - level.boxes[0, :2]).tolist() for level in geometry.anchors]
    assert sides == [[s, s] for s in (16, 32, 64, 128, 256, 512)]
    assert geometry.anchors[1].boxes.tolist() == [[-14, -14, 18, 18]]
    assert geometry.thresholds == (0.3, 0.7)
    narrow(cfg)
    rpn = build_model(cfg).proposal_generator
    assert rpn.in_features == [level.name for level in geometry.anchors]
    for cell, level in zip(rpn.anchor_generator.cell_anchors, geometry.anchors, strict=True):
        np.testing.assert_allclose(cell + level.stride / 2, level.boxes)


def test_a_dense_detector_has_anchors_alone():
    geometry = describe_detector(analysis_config(name=RETINANET))
    assert geometry.read_levels == []
    assert geometry.anchors[0].name == "p2_prime"
    assert geometry.thresholds == (0.4, 0.5)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"], "anchors of DefaultAnchor"),
        (
            ["MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"],
            "PrecomputedProposals, .*anchors",
        ),
    ],
)
def test_detectors_without_such_anchors(opts, message):
    with pytest.raises(ValueError, match=message):
        describe_detector(analysis_config(*opts))
