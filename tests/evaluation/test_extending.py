import numpy as np
import pytest

from efpn_d2.evaluation import (
    COCO_PROTOCOLS,
    MetricSpec,
    evaluate_coco,
    metric_specs,
    register_metric,
)
from efpn_d2.evaluation.coco_evaluator import _table
from efpn_d2.report import REPORT_RULES
from efpn_d2.report.tables import metrics as report_columns
from tests.evaluation.coco_files import random_dataset
from tests.recipes import recipe

pytestmark = pytest.mark.fast


@pytest.fixture
def metrics(monkeypatch):
    """The table of registered metrics, which is as it was after the test."""
    monkeypatch.setattr(metric_specs, "METRICS", {})
    return metric_specs.METRICS


def test_a_metric_from_outside(metrics):
    coco, results = random_dataset(np.random.default_rng(0))
    before = evaluate_coco(coco, results, COCO_PROTOCOLS["coco"]).metrics()
    exec(recipe("A size-binned metric"), {})
    result = evaluate_coco(coco, results, COCO_PROTOCOLS["coco"])
    after = result.metrics()
    assert {k: v for k, v in after.items() if k in before} == pytest.approx(before, nan_ok=True)
    assert set(after) - set(before) == {"ARhalf", "ARhalfs", "ARhalfm", "ARhalfl"}
    assert after["ARhalf"] == pytest.approx(100 * np.nanmean(result.recall[0, :, 0, -1]))
    assert after["ARhalfs"] == pytest.approx(100 * np.nanmean(result.recall[0, :, 1, -1]))
    assert after["ARhalf"] > after["AR100"]  # the mean over higher thresholds
    head, *_ = _table(result, after).splitlines()
    assert head.split(" | ")[-1].startswith("ARhalf")
    assert "ARhalf" in [column.heading for column in report_columns(REPORT_RULES["small"])]
    with pytest.raises(ValueError, match="metric .ARhalf. already"):
        exec(recipe("A size-binned metric"), {})


@pytest.mark.parametrize("name", ["AP", "AP50", "AR100", "objects", "oLRPLoc"])
def test_names_of_the_package_are_taken(metrics, name):
    with pytest.raises(ValueError, match=f"metric .{name}. already"):
        register_metric(MetricSpec(name, "", lambda part: 0.0))
    assert not metrics
