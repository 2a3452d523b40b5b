import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import DatasetEvaluators
from detectron2.structures import Boxes, Instances
from PIL import Image

from efpn_d2 import get_config
from efpn_d2.data.coco import record_checks
from efpn_d2.engine import EFPNTrainer
from efpn_d2.engine.report_hook import RESULTS
from efpn_d2.evaluation import (
    COCO_PROTOCOLS,
    build_evaluator,
    coco_arrays,
    coco_backends,
    coco_metrics,
    protocol_evaluator,
)
from efpn_d2.evaluation.coco_arrays import ground_truth
from efpn_d2.report import REPORT_RULES, Evaluated, ReportOptions, write_report

pytestmark = pytest.mark.fast

NAME = "report_hook_test/val"


@pytest.fixture
def cfg(tmp_path):
    """One image of a registered set, with one object, and a config that asks for the report."""
    Image.fromarray(np.zeros((20, 20, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "val.json").write_text(
        json.dumps(
            {
                "info": {},
                "images": [{"id": 5, "file_name": "a.png", "width": 20, "height": 20}],
                "categories": [{"id": 3, "name": "sign"}],
                "annotations": [
                    {"id": 1, "image_id": 5, "category_id": 3, "bbox": [2, 2, 8, 8]}
                    | {"area": 64, "iscrowd": 0}
                ],
            }
        )
    )
    register_coco_instances(NAME, {}, str(tmp_path / "val.json"), str(tmp_path))
    DatasetCatalog.get(NAME)
    cfg = get_config("Base-RCNN-EFPN.yaml")
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    cfg.EVALUATION.SIZE_BINS = [0, 8]
    cfg.EVALUATION.REPORT = True
    yield cfg
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def evaluate(evaluator):
    """Run an evaluator on one detection that fits the object."""
    instances = Instances((20, 20))
    instances.pred_boxes = Boxes(torch.tensor([[2.0, 2.0, 10.0, 10.0]]))
    instances.scores, instances.pred_classes = torch.tensor([0.75]), torch.tensor([0])
    evaluator.reset()
    evaluator.process([{"image_id": 5}], [{"instances": instances}])
    return evaluator.evaluate()


def test_the_page_stands_beside_the_predictions(cfg, tmp_path):
    evaluator = EFPNTrainer.build_evaluator(cfg, NAME)
    assert isinstance(evaluator, DatasetEvaluators)
    results = evaluate(evaluator)
    assert results["bbox"]["AP_8_inf"] == pytest.approx(100)
    report = tmp_path / "output" / "inference" / "report_report_hook_test_val"
    html = (report / "index.html").read_text()
    assert "<h1>report_hook_test/val</h1>" in html
    assert "AP_8_inf" in html  # the evaluator's own numbers
    assert "0 to 8 px" in html and "s: 0 to 32 px" in html
    assert (report / "images" / "0.png").is_file()


def test_it_is_off_by_default(cfg, tmp_path):
    assert not get_config("Base-RCNN-EFPN.yaml").EVALUATION.REPORT
    cfg.EVALUATION.REPORT = False
    evaluate(EFPNTrainer.build_evaluator(cfg, NAME))
    assert not list((tmp_path / "output" / "inference").glob("report*"))


def test_a_report_that_fails_costs_no_numbers(cfg, tmp_path, caplog):
    evaluator = EFPNTrainer.build_evaluator(cfg, NAME)
    folder = tmp_path / "output" / "inference" / "report_report_hook_test_val"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    assert evaluate(evaluator)["bbox"]["AP"] == pytest.approx(100)
    assert f"report on '{NAME}': " in caplog.text
    assert "holds files that are not of a report" in caplog.text


@pytest.mark.parametrize("protocol", ["coco", "tinyperson", "visdrone"])
def test_the_file_is_checked_once_and_ap_computed_once(cfg, tmp_path, monkeypatch, protocol):
    checks, runs = [], []

    def check(content, source, **fields):
        checks.append(source)
        record_checks.check_content(content, source, **fields)

    def accumulate(*args):
        runs.append(args)
        return coco_backends.accumulate(*args)

    for module in (protocol_evaluator, coco_metrics, coco_arrays):
        monkeypatch.setattr(module, "check_content", check)
    monkeypatch.setattr(coco_metrics, "accumulate", accumulate)
    cfg.EVALUATION.PROTOCOL = protocol
    cfg.EVALUATION.SIZE_BINS = []
    evaluate(EFPNTrainer.build_evaluator(cfg, NAME))
    assert checks == [str(tmp_path / "val.json")]
    assert len(runs) == (len(COCO_PROTOCOLS["tinyperson"].areas) if protocol == "tinyperson" else 1)
    assert list((tmp_path / "output" / "inference").glob("report*/index.html"))


def test_a_report_by_other_rules_than_the_evaluation_is_refused(cfg, tmp_path):
    evaluator = build_evaluator(cfg, NAME, str(tmp_path / "output"))
    evaluate(evaluator)
    evaluated = Evaluated(
        ground_truth(evaluator.dataset, "val.json"), evaluator.coco_results["bbox"]
    )
    files = ([tmp_path / "output" / RESULTS], tmp_path / "val.json", tmp_path, tmp_path / "r")
    with pytest.raises(ValueError, match=r"by other rules \(coco\) than the report \(aitod\)"):
        write_report(*files, ReportOptions(rules=REPORT_RULES["aitod"]), evaluated)
    two = ([files[0][0]] * 2, *files[1:])
    with pytest.raises(ValueError, match="report on one run, but there are two"):
        write_report(*two, evaluated=evaluated)
