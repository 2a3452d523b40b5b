"""The recipes of docs/extending.md, run as they are written."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import prepare_dataset
from efpn_d2.data.converters import CONVERTERS, Converter, register_converter
from efpn_d2.evaluation import PRESETS, evaluate_coco, metric_specs
from efpn_d2.evaluation.coco_evaluator import _table
from efpn_d2.report import PROTOCOLS
from efpn_d2.report.tables import metrics as report_columns
from tests.data.trees import write_image
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


@pytest.fixture
def converters(monkeypatch, tmp_path):
    """The table of converters, which is as it was after the test, in a folder with the recipe."""
    before = dict(CONVERTERS)
    (tmp_path / "signs.py").write_text(recipe("A data set in another format"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield CONVERTERS
    sys.modules.pop("signs", None)
    CONVERTERS.clear()
    CONVERTERS.update(before)


def test_a_data_set_in_another_format(converters, tmp_path, capsys):
    for split, lines in (("train", "1 2 10 12\n30 20 8 8\n"), ("val", "60 40 10 10\n")):
        write_image(tmp_path / "source" / split / "a.png")
        (tmp_path / "source" / split / "a.txt").write_text(lines)
    places = ["--source", str(tmp_path / "source"), "--output", str(tmp_path / "out")]
    prepare_dataset.main(["--import", "signs", "signs", *places, "--quiet"])
    content = json.loads((tmp_path / "out" / "signs_train.json").read_text())
    assert [a["bbox"] for a in content["annotations"]] == [[1, 2, 10, 12], [30, 20, 8, 8]]
    description = json.loads((tmp_path / "out" / "signs_val.dataset.json").read_text())
    assert description["protocol"] == "aitod"
    assert "box_leaves_image: boxes that leave their image (1 clipped)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        prepare_dataset.main(["coco", *places])
    assert "is laid out as signs, not coco" in capsys.readouterr().err
    with pytest.raises(ValueError, match="a converter 'signs' already"):
        register_converter(Converter("signs", "", bool, lambda source, selection: ()))
