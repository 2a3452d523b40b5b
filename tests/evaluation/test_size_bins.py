import math

import pytest
from pycocotools.coco import COCO

from efpn_d2.evaluation import evaluate_size_bins, size_bins

pytestmark = pytest.mark.fast

CATEGORIES = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]


def square(image_id, side, category_id=1, x=0, **kwargs):
    """A square object or detection at (x, 0)."""
    box = {"image_id": image_id, "category_id": category_id, "bbox": [x, 0, side, side]}
    return box | {"area": side * side, "iscrowd": 0} | kwargs


def ground_truth(objects, num_images=1):
    coco = COCO()
    annotations = [{"id": i + 1, **obj} for i, obj in enumerate(objects)]
    images = [{"id": i + 1, "width": 500, "height": 500} for i in range(num_images)]
    coco.dataset = {"info": {}, "images": images, "annotations": annotations}
    coco.dataset["categories"] = CATEGORIES
    coco.createIndex()
    return coco


def evaluate(objects, detections, edges, num_images=1, iou_type="bbox", **kwargs):
    coco_gt = ground_truth(objects, num_images)
    coco_dt = coco_gt.loadRes(detections) if detections else None
    return evaluate_size_bins(coco_gt, coco_dt, iou_type, size_bins(edges), **kwargs)


def test_hand_computed_bins():
    """Small: 1 of 2 found at rank 1, then a false one. Large: found behind a false positive."""
    objects = [square(1, 10), square(1, 10, x=100), square(1, 50, x=200)]
    detections = [
        square(1, 10, score=0.9),
        square(1, 10, x=400, score=0.8),  # nothing there
        square(1, 50, x=300, score=0.7),  # nothing there
        square(1, 50, x=200, score=0.6),
    ]
    results = evaluate(objects, detections, [0, 16, 32])
    # Precision is 1 up to recall 0.5: 51 of the 101 recall points.
    assert results["AP_0_16"] == results["AP50_0_16"] == pytest.approx(100 * 51 / 101)
    assert results["AR_0_16"] == pytest.approx(50)
    assert results["objects_0_16"] == 2
    # Precision 1/2 at every recall point; the small false positive does not count here.
    assert results["AP_32_inf"] == pytest.approx(50)
    assert results["AR_32_inf"] == pytest.approx(100)
    assert results["objects_32_inf"] == 1
    assert results["objects_16_32"] == 0
    assert all(math.isnan(results[f"{metric}_16_32"]) for metric in ("AP", "AP50", "AR"))


def test_iou_thresholds():
    """An overlap of 100 / 160 = 0.625 passes the thresholds 0.5, 0.55 and 0.6 of ten."""
    wide = square(1, 10, score=0.9) | {"bbox": [0, 0, 16, 10]}
    results = evaluate([square(1, 10)], [wide], [0])
    assert results["AP50_0_inf"] == pytest.approx(100)
    assert [results["AP_0_inf"], results["AR_0_inf"]] == pytest.approx([30, 30])


def test_mean_over_the_classes_that_occur():
    objects = [square(1, 10), square(1, 10, category_id=2, x=100), square(1, 40, x=200)]
    detections = [square(1, 10, score=0.9), square(1, 40, x=200, score=0.9)]
    results = evaluate(objects, detections, [0, 16])
    assert results["AP_0_16"] == pytest.approx(50)
    assert results["AP_16_inf"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("area", "label"), [(63.999, "0_8"), (64, "8_16"), (64.001, "8_16"), (256, "16_inf")]
)
def test_bins_are_half_open(area, label):
    results = evaluate([square(1, 8, area=area)], [square(1, 8, score=0.9)], [0, 8, 16])
    counts = {k.removeprefix("objects_"): v for k, v in results.items() if k.startswith("objects")}
    assert [name for name, count in counts.items() if count] == [label]
    assert results[f"AP_{label}"] == pytest.approx(100)
    assert sum(not math.isnan(v) for k, v in results.items() if k.startswith("AP_")) == 1


@pytest.mark.parametrize(("side", "false_in"), [(8, "8_16"), (7.99, "0_8")])
def test_unmatched_detection_is_false_in_the_bin_of_its_own_size(side, false_in):
    objects = [square(1, 5), square(1, 10, x=100)]
    found = [square(1, 5, score=0.5), square(1, 10, x=100, score=0.5)]
    results = evaluate(objects, [square(1, side, x=400, score=0.9), *found], [0, 8, 16])
    expected = {"0_8": 100, "8_16": 100} | {false_in: 50}
    assert {label: round(results[f"AP_{label}"], 6) for label in expected} == expected


def test_annotated_area_decides_not_the_box():
    """A thin object has a box of 20 x 20 but an area of 36."""
    thin = square(1, 20, area=36)
    results = evaluate([thin], [square(1, 20, score=0.9)], [0, 8])
    assert (results["objects_0_8"], results["objects_8_inf"]) == (1, 0)
    assert results["AP_0_8"] == pytest.approx(100)


def test_masks():
    """Half of the box is mask, so the detection that fills the box has IoU 0.5."""
    triangle = square(1, 20, area=200, segmentation=[[0, 0, 20, 0, 0, 20]])
    exact = {"image_id": 1, "category_id": 1, "score": 0.9}
    coco_gt = ground_truth([triangle])
    exact["segmentation"] = coco_gt.annToRLE(coco_gt.anns[1])
    coco_dt = coco_gt.loadRes([exact])
    results = evaluate_size_bins(coco_gt, coco_dt, "segm", size_bins([0, 16]))
    assert results["AP_0_16"] == pytest.approx(100)
    assert math.isnan(results["AP_16_inf"])


def test_crowds_neither_count_nor_punish():
    crowd = square(1, 10, x=100, iscrowd=1, segmentation={"size": [500, 500], "counts": [0, 10]})
    detections = [square(1, 10, x=100, score=0.9), square(1, 10, score=0.8)]
    results = evaluate([square(1, 10), crowd], detections, [0])
    assert results["objects_0_inf"] == 1
    assert results["AP_0_inf"] == pytest.approx(100)


def test_no_detections_at_all():
    results = evaluate([square(1, 10)], [], [0, 8, 16], num_images=2)
    assert results["AP_8_16"] == results["AP50_8_16"] == results["AR_8_16"] == 0
    assert math.isnan(results["AP_0_8"])
    assert results["objects_8_16"] == 1


def test_images_without_detections_or_objects():
    objects = [square(1, 10), square(2, 10)]
    detections = [square(1, 10, score=0.9), square(3, 10, score=0.1)]
    results = evaluate(objects, detections, [0], num_images=4)
    assert results["AP_0_inf"] == pytest.approx(100 * 51 / 101)
    chosen = evaluate(objects, detections, [0], num_images=4, img_ids=[1, 4])
    assert chosen["AP_0_inf"] == pytest.approx(100)
    assert chosen["objects_0_inf"] == 1


def test_limit_of_detections():
    objects = [square(1, 10, x=20 * i) for i in range(4)]
    detections = [square(1, 10, x=20 * i, score=0.9) for i in range(4)]
    assert evaluate(objects, detections, [0], max_dets=2)["AR_0_inf"] == pytest.approx(50)
    assert evaluate(objects, detections, [0])["AR_0_inf"] == pytest.approx(100)


def test_labels():
    assert [b.label for b in size_bins([0, 7.5, 32])] == ["0_7.5", "7.5_32", "32_inf"]
    assert size_bins([]) == []


@pytest.mark.parametrize("edges", [[0, 8, 8], [8, 0], [-1, 4]])
def test_edges_must_ascend(edges):
    with pytest.raises(ValueError, match="EVALUATION.SIZE_BINS .* must be ascending sizes"):
        size_bins(edges)
