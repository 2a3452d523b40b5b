import json
import math

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator, print_csv_format
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.structures import BitMasks, Boxes, Instances

from efpn_d2.evaluation import COCO_PROTOCOLS, SizeBinnedCOCOEvaluator

pytestmark = pytest.mark.fast

EDGES = [0, 8, 16, 32]
# Sparse ids, as in COCO: class 0 is category 7, class 1 is category 9.
BOXES = {11: [(7, [0, 0, 6, 6]), (9, [50, 50, 20, 20])], 12: [(7, [10, 10, 12, 12])], 13: []}


@pytest.fixture
def dataset(tmp_path):
    annotations = []
    for image_id, objects in BOXES.items():
        for category_id, (x, y, w, h) in objects:
            polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "iscrowd": 0}
            annotation |= {"category_id": category_id, "bbox": [x, y, w, h], "area": w * h}
            annotations.append(annotation | {"segmentation": polygon})
    coco = {
        "info": {},  # which the base class needs with pycocotools 2.0.9 and 2.0.10
        "images": [{"id": i, "file_name": f"{i}.png", "width": 99, "height": 99} for i in BOXES],
        "annotations": annotations,
        "categories": [{"id": 7, "name": "a"}, {"id": 9, "name": "b"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    register_coco_instances("evaluator_test", {}, str(tmp_path / "coco.json"), str(tmp_path))
    DatasetCatalog.get("evaluator_test")  # fills the class ids of the metadata
    yield "evaluator_test"
    DatasetCatalog.remove("evaluator_test")
    MetadataCatalog.remove("evaluator_test")


def instances(classes, boxes, scores, masks=False):
    result = Instances((99, 99))
    result.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    result.scores = torch.tensor(scores, dtype=torch.float32)
    result.pred_classes = torch.tensor(classes, dtype=torch.int64)
    if masks:
        polygons = torch.zeros(len(classes), 99, 99, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(polygons, boxes, strict=True):
            mask[y0:y1, x0:x1] = True
        result.pred_masks = BitMasks(polygons).tensor
    return result


def perfect(image_id, **kwargs):
    objects = BOXES[image_id]
    boxes = [[x, y, x + w, y + h] for _, (x, y, w, h) in objects]
    return instances([(7, 9).index(c) for c, _ in objects], boxes, [0.9] * len(objects), **kwargs)


def run(evaluator, predictions, img_ids=None):
    evaluator.reset()
    for image_id, prediction in predictions.items():
        evaluator.process([{"image_id": image_id}], [{"instances": prediction}])
    return evaluator.evaluate(img_ids=img_ids)


def test_core_results_are_kept_and_bins_added(dataset):
    # The object of 20 px is missed.
    predictions = {i: perfect(i) for i in BOXES} | {11: perfect(11)[:1]}
    results = run(SizeBinnedCOCOEvaluator(dataset, size_bin_edges=EDGES), predictions)["bbox"]
    core = run(COCOEvaluator(dataset), predictions)["bbox"]
    assert {k: results[k] for k in core} == pytest.approx(core, nan_ok=True)
    assert core["AP"] == pytest.approx(50)
    expected = {"objects_0_8": 1, "objects_8_16": 1, "objects_16_32": 1, "objects_32_inf": 0}
    for metric in ("AP", "AP50", "AR"):
        expected |= {f"{metric}_0_8": 100, f"{metric}_8_16": 100, f"{metric}_16_32": 0}
        expected |= {f"{metric}_32_inf": math.nan}
    expected |= {"AR1": 50, "AR10": 50, "AR100": 50, "ARs": 50, "ARm": math.nan, "ARl": math.nan}
    expected |= {"objects": 3, "objects_s": 3, "objects_m": 0, "objects_l": 0}
    added = {k: v for k, v in results.items() if k not in core}
    assert added == pytest.approx(expected, nan_ok=True)


def test_masks_are_binned_too(dataset):
    predictions = {i: perfect(i, masks=True) for i in BOXES}
    results = run(SizeBinnedCOCOEvaluator(dataset, size_bin_edges=EDGES), predictions)
    for task in ("bbox", "segm"):
        assert [results[task][f"AP_{b}"] for b in ("0_8", "16_32")] == pytest.approx([100, 100])


def test_a_detector_that_finds_nothing(dataset):
    """AP is 0 where there are objects, not NaN as in the core evaluator."""
    nothing = {i: instances([], [], []) for i in BOXES}
    results = run(SizeBinnedCOCOEvaluator(dataset, size_bin_edges=EDGES), nothing)["bbox"]
    assert results["AP"] == results["AP-a"] == results["AP_0_8"] == results["AR_16_32"] == 0
    assert math.isnan(results["AP_32_inf"])


def test_no_image_at_all(dataset):
    assert run(SizeBinnedCOCOEvaluator(dataset), {}) == {}


def test_images_can_be_chosen(dataset):
    predictions = {i: perfect(i) for i in BOXES}
    evaluator = SizeBinnedCOCOEvaluator(dataset, size_bin_edges=EDGES)
    results = run(evaluator, predictions, img_ids=[12])["bbox"]
    assert (results["objects_0_8"], results["objects_8_16"]) == (0, 1)


@pytest.mark.parametrize("limit", [2, 100, 300])
def test_numbers_of_the_core_evaluator_with_any_limit(dataset, limit):
    predictions = {i: perfect(i, masks=True) for i in BOXES}
    results = run(SizeBinnedCOCOEvaluator(dataset, max_dets_per_image=limit), predictions)
    core = run(COCOEvaluator(dataset, max_dets_per_image=limit), predictions)
    for task in ("bbox", "segm"):
        values = {k: results[task][k] for k in core[task]}
        assert values == pytest.approx(core[task], nan_ok=True)
        assert results[f"{task}_protocol"]["maxDets"] == limit


def test_the_log_shows_the_rules_and_the_bins(dataset, caplog):
    caplog.set_level("INFO")
    evaluator = SizeBinnedCOCOEvaluator(dataset, size_bin_edges=EDGES, backend="pycocotools")
    print_csv_format(run(evaluator, {i: perfect(i) for i in BOXES}))
    assert "protocol coco; maxDets 1, 10, 100; IoU 0.5, 0.55," in caplog.text
    assert "backend pycocotools 2." in caplog.text
    assert "| 8_16   | 8 to 16           | 1         | 100.000         |" in caplog.text
    assert "| 32_inf | 32 and more       | 0         | n/a (0 objects) |" in caplog.text
    header = next(r.getMessage() for r in caplog.records if "AP50_0_8" in r.getMessage())
    assert header.startswith("copypaste: AP,AP50,AP75,APs,APm,APl,AP_0_8,")
    rules = next(r.getMessage() for r in caplog.records if "maxDets,IoU" in r.getMessage())
    assert "max_area_s" in rules and "backend_pycocotools" in rules


def test_results_are_numbers_as_training_hooks_need_them(dataset):
    """Detectron2's hook takes nested dicts of what float() takes, and nothing else."""
    evaluator = SizeBinnedCOCOEvaluator(dataset, size_bin_edges=EDGES, backend="pycocotools")
    results = run(evaluator, {i: perfect(i, masks=True) for i in BOXES})
    for value in flatten_results_dict(results).values():
        float(value)
    rules = results["bbox_protocol"]
    assert (rules["maxDets"], rules["IoU_count"], rules["backend_pycocotools"]) == (100, 10, 1)
    assert (rules["min_area_8_16"], rules["max_area_8_16"]) == (64, pytest.approx(256))
    assert "max_area_32_inf" not in rules


def test_a_file_keeps_results_and_rules(dataset, tmp_path):
    evaluator = SizeBinnedCOCOEvaluator(
        dataset, protocol=COCO_PROTOCOLS["aitod"], backend="pycocotools", output_dir=str(tmp_path)
    )
    results = run(evaluator, {i: perfect(i) for i in BOXES})
    content = json.loads((tmp_path / f"evaluation_{dataset}.json").read_text())
    assert content["rules"]["maxDets"] == [1, 100, 1500]
    assert content["rules"]["areas in square pixels"]["vt"] == [0, 64]
    assert content["rules"]["areas in square pixels"]["m"] == [1024, None]
    assert content["rules"]["IoU"] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert content["rules"]["backend"].startswith("pycocotools 2.")
    assert content["results"]["bbox"]["APvt"] == results["bbox"]["APvt"] == pytest.approx(100)
    assert content["results"]["bbox"]["APm"] is None
    assert math.isnan(results["bbox"]["APm"])
    assert results["bbox"]["oLRP"] == pytest.approx(0)
    assert json.loads((tmp_path / "coco_instances_results.json").read_text())


def test_what_has_no_object_is_no_nan_in_the_log(tmp_path, caplog):
    caplog.set_level("INFO")
    image = {"id": 1, "file_name": "1.png", "width": 99, "height": 99}
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    annotation = {"id": 1, "image_id": 1, "iscrowd": 0, "bbox": [0, 0, 6, 6], "area": 36}
    for name, annotations in (("none", []), ("one", [annotation | {"category_id": 1}])):
        content = {"images": [image], "annotations": annotations, "categories": categories}
        (tmp_path / "gt.json").write_text(json.dumps(content))
        register_coco_instances(name, {}, str(tmp_path / "gt.json"), str(tmp_path))
        try:
            DatasetCatalog.get(name)
            run(
                SizeBinnedCOCOEvaluator(name, protocol=COCO_PROTOCOLS["aitod"]),
                {1: instances([], [], [])},
            )
        finally:
            DatasetCatalog.remove(name), MetadataCatalog.remove(name)
    logs = [record.getMessage() for record in caplog.records if record.name.startswith("efpn_d2")]
    assert "oLRP n/a (0 objects), oLRPLoc n/a (0 objects)" in logs[0]
    assert "AR1 n/a (0 objects), AR100 n/a (0 objects)" in logs[0]
    assert "oLRP 100.000, oLRPLoc n/a, oLRPFP n/a, oLRPFN 100.000" in logs[2]
    assert "| b       | n/a (0 objects) |" in logs[3]
    assert not any("nan" in log for log in logs)


def test_tasks_can_be_chosen(dataset):
    predictions = {i: perfect(i, masks=True) for i in BOXES}
    results = run(SizeBinnedCOCOEvaluator(dataset, tasks=("segm",)), predictions)
    assert results.keys() == {"segm", "segm_protocol"}


def test_bad_edges(dataset):
    with pytest.raises(ValueError, match="must be ascending"):
        SizeBinnedCOCOEvaluator(dataset, size_bin_edges=[16, 8])
