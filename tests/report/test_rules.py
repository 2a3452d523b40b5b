import math

import numpy as np
import pytest

from efpn_d2.error_analysis.summary import Rates
from efpn_d2.error_analysis.verdicts import analyze_run
from efpn_d2.evaluation.coco_arrays import load_detections, load_ground_truth
from efpn_d2.evaluation.coco_protocols import COCO_PROTOCOLS
from efpn_d2.report import REPORT_RULES
from efpn_d2.report.rules import area_ends, area_text, bin_text
from efpn_d2.report.run import Run
from efpn_d2.report.run_metrics import precision_curve, run_metrics
from efpn_d2.report.tables import metrics

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("coco", [0, 32, 96]),
        ("aitod", [0, 8, 16, 32]),
        ("sodad", [0, 12, 20, 32, pytest.approx(math.sqrt(2000))]),
        ("tinyperson", [0, 8, 12, 20, 32]),
        ("small", [0, 8, 16, 32, 96]),
    ],
)
def test_bins_of_errors_have_no_gap_and_no_overlap(name, edges):
    assert list(REPORT_RULES[name].edges) == edges
    assert REPORT_RULES[name].bounds[-1] == math.inf


def test_presets_keep_their_rules():
    assert set(REPORT_RULES) == {*COCO_PROTOCOLS, "small"}
    assert REPORT_RULES["aitod"].coco is COCO_PROTOCOLS["aitod"]
    assert REPORT_RULES["aitod"].max_dets == 1500
    assert REPORT_RULES["tinyperson"].iou == 0.25


def test_changes_are_named():
    changed = REPORT_RULES["coco"].changed((0, 10), 300)
    assert changed.edges == (0, 10) and changed.max_dets == 300
    assert len(changed.coco.bins) == 2 and len(changed.coco.notes) == 2
    assert changed.coco.notes[-1] == "size bins 0 to 10 px, 10 px and more instead of its own"
    assert REPORT_RULES["coco"].changed() == REPORT_RULES["coco"]
    with pytest.raises(ValueError, match="must be ascending sizes"):
        REPORT_RULES["coco"].changed((8, 4))


def test_texts():
    texts = [area_text(area) for area in REPORT_RULES["coco"].coco.areas]
    assert texts == ["all sizes", "s: 0 to 32 px", "m: 32 to 96 px", "l: 96 px and more"]
    assert area_text(COCO_PROTOCOLS["sodad"].overall) == "0 to 32 px"
    assert [bin_text(b) for b in REPORT_RULES["coco"].bins][1:] == ["32 to 96 px", "96 px and more"]
    assert area_ends(COCO_PROTOCOLS["coco"].bins[-1]) == (96, math.inf)
    low, high = area_ends(REPORT_RULES["small"].coco.bins[0])
    assert low == 0 and high == pytest.approx(8)


def test_metrics_of_a_run_are_those_of_the_evaluation(sample):
    truth = load_ground_truth(sample.annotations)
    found = load_detections(sample.runs[0], truth)
    result = run_metrics(truth, found, REPORT_RULES["coco"], backend="pycocotools")
    expected = result.metrics()
    columns = {m.heading: m for m in metrics(REPORT_RULES["coco"])}
    assert list(columns) == ["AP", "AP50", "AP75", "AR", "accuracy", "recall", "F1"]
    run = Run("run", analyze_run(truth, found), result, 0.5)

    def value(name, size=0, class_index=None):
        return columns[name].value(run, size, class_index, Rates(1, 1, 0))

    assert value("AP") == expected["AP"] > 5
    assert value("AP50", 1) == pytest.approx(np.nanmean(result.precision[0, :, :, 1, -1]) * 100)
    assert (value("AR"), value("AR", 1)) == (expected["AR100"], expected["ARs"])
    assert math.isnan(value("AP", 3))  # no object is that large
    assert [value("AP", 0, k) for k in range(3)] == result.class_precision().tolist()
    assert precision_curve(result).mean() * 100 == pytest.approx(expected["AP50"])
    assert np.isnan(precision_curve(result, 3)).all()
