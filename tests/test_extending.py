"""The recipes of docs/extending.md, run as they are written."""

import re
from pathlib import Path

import numpy as np
import pytest

from efpn_d2.evaluation import PRESETS, evaluate_coco, metric_specs
from efpn_d2.evaluation.coco_evaluator import _table
from efpn_d2.report import PROTOCOLS
from efpn_d2.report.tables import metrics as report_columns
from tests.evaluation.coco_files import random_dataset

pytestmark = pytest.mark.fast

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extending.md"


def recipe(title: str) -> str:
    """The block of code below a title of the page."""
    pattern = rf"^\*\*{title}\.\*\*.*?```python\n(.*?)```"
    return re.search(pattern, PAGE.read_text(), re.MULTILINE | re.DOTALL).group(1)


@pytest.fixture
def metrics(monkeypatch):
    """The table of registered metrics, which is as it was after the test."""
    monkeypatch.setattr(metric_specs, "METRICS", {})
    return metric_specs.METRICS


def test_a_size_binned_metric(metrics):
    coco, results = random_dataset(np.random.default_rng(0))
    before = evaluate_coco(coco, results, PRESETS["coco"]).metrics()
    exec(recipe("A size-binned metric"), {})
    result = evaluate_coco(coco, results, PRESETS["coco"])
    after = result.metrics()
    assert {k: v for k, v in after.items() if k in before} == pytest.approx(before, nan_ok=True)
    assert set(after) - set(before) == {"ARhalf", "ARhalfs", "ARhalfm", "ARhalfl"}
    assert after["ARhalf"] == pytest.approx(100 * np.nanmean(result.recall[0, :, 0, -1]))
    assert after["ARhalfs"] == pytest.approx(100 * np.nanmean(result.recall[0, :, 1, -1]))
    assert after["ARhalf"] > after["AR100"]  # the mean over higher thresholds
    head, *_ = _table(result, after).splitlines()
    assert head.split(" | ")[-1].startswith("ARhalf")
    assert "ARhalf" in [column.heading for column in report_columns(PROTOCOLS["small"])]
    with pytest.raises(ValueError, match="a metric 'ARhalf' already"):
        exec(recipe("A size-binned metric"), {})
