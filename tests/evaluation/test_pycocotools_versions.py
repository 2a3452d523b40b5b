"""Releases of pycocotools differ in what they ask of a data set."""

import pytest
from detectron2.data import MetadataCatalog
from detectron2.evaluation import coco_evaluation
from pycocotools.coco import COCO

from efpn_d2.evaluation import PRESETS, SizeBinnedCOCOEvaluator, coco_backends, evaluate_coco
from tests.evaluation.coco_files import annotation, dataset, instances, run, write

pytestmark = pytest.mark.fast

NAME = "pycocotools_versions_test"
# Three keypoints, all visible, in the middle of the object.
KEYPOINTS = [15, 15, 2, 16, 15, 2, 15, 16, 2]


class StrictCOCO(COCO):
    """``loadRes`` of 2.0.9 and 2.0.10, which copies ``info`` without asking for it."""

    def loadRes(self, resFile):
        info = self.dataset["info"]
        results = super().loadRes(resFile)
        results.dataset["info"] = info
        return results


@pytest.fixture(autouse=True)
def strict_pycocotools(monkeypatch):
    monkeypatch.setattr(coco_backends, "COCO", StrictCOCO)
    monkeypatch.setattr(coco_evaluation, "COCO", StrictCOCO)


def content(**fields):
    return dataset([annotation(1, 1, 1, [10, 10, 10, 10], **fields)], 1, names=("a",))


@pytest.mark.parametrize("results", [True, False])
def test_a_data_set_without_info_is_evaluated(results):
    found = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 10, 10], "score": 0.9}]
    result = evaluate_coco(content(), found * results, PRESETS["coco"], backend="pycocotools")
    assert result.metrics()["AP"] == pytest.approx(100.0 * results)


def test_keypoints_of_a_file_without_info_are_evaluated(tmp_path):
    path = write(tmp_path / "gt.json", content(keypoints=KEYPOINTS, num_keypoints=3))
    MetadataCatalog.get(NAME).set(json_file=path, evaluator_type="coco", thing_classes=["a"])
    try:
        evaluator = SizeBinnedCOCOEvaluator(
            NAME, use_fast_impl=False, kpt_oks_sigmas=[0.1] * 3, backend="pycocotools"
        )
        found = instances([(0, 0.9, 10, 10, 10, 10)])
        points = found.pred_boxes.tensor.new_tensor(KEYPOINTS).reshape(1, 3, 3)
        found.pred_keypoints = points + points.new_tensor([0.5, 0.5, 0])  # pixel centres
        results = run(evaluator, {1: found})
    finally:
        MetadataCatalog.remove(NAME)
    assert {"keypoints", "bbox", "bbox_protocol"} == results.keys()
    assert results["keypoints"]["AP"] == pytest.approx(100)
    assert results["bbox"]["AP"] == pytest.approx(100)
