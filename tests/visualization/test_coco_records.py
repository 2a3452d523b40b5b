import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from efpn_d2.visualization.coco_records import load_image_records

pytestmark = pytest.mark.fast


@pytest.fixture
def dataset(tmp_path):
    """Two images; the category ids 5 and 9 stand for the classes 0 and 1."""
    common = {"width": 40, "height": 30}
    box = {"image_id": 1, "category_id": 9, "bbox": [1, 2, 10, 20], "area": 200}
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", **common} for i in (1, 2)],
        "categories": [{"id": 5, "name": "five"}, {"id": 9, "name": "nine"}],
        "annotations": [{"id": 1, "iscrowd": 0, **box}, {"id": 2, "iscrowd": 1, **box}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    register_coco_instances("coco_records_test", {}, str(tmp_path / "gt.json"), str(tmp_path))
    yield "coco_records_test"
    DatasetCatalog.remove("coco_records_test")
    MetadataCatalog.remove("coco_records_test")


def test_truth_and_detections_meet_by_image_in_classes_and_corners(dataset, tmp_path):
    found = [{"image_id": 2, "category_id": 5, "bbox": [3, 4, 5, 6], "score": 0.25}]
    (tmp_path / "results.json").write_text(json.dumps(found))
    first, second = load_image_records(dataset, tmp_path / "results.json")
    assert (first.name, second.name) == ("1.png", "2.png")
    np.testing.assert_array_equal(first.gt_boxes, [[1, 2, 11, 22]] * 2)
    assert first.gt_classes.tolist() == [1, 1] and first.gt_crowd.tolist() == [False, True]
    assert len(first.boxes) == 0 and len(second.gt_boxes) == 0
    np.testing.assert_array_equal(second.boxes, [[3, 4, 8, 10]])
    assert second.classes.tolist() == [0] and second.scores.tolist() == [0.25]


def test_a_result_that_cannot_be_read_is_named(dataset, tmp_path):
    (tmp_path / "results.json").write_text('[{"image_id": 2, "category_id": 5, "score": 0.5}]')
    with pytest.raises(ValueError, match=r"results\[0\] of .*results.json has no bbox"):
        load_image_records(dataset, tmp_path / "results.json")
