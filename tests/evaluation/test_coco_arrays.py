import json

import numpy as np
import pytest

from efpn_d2.evaluation.coco_arrays import box_sizes, load_detections, load_ground_truth

pytestmark = pytest.mark.fast

DATASET = {
    "images": [
        {"id": 30, "file_name": "a.jpg", "width": 64, "height": 64},
        {"id": 7, "file_name": "b.jpg", "width": 64, "height": 64},
    ],
    "categories": [{"id": 9, "name": "nine"}, {"id": 2, "name": "two"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 9, "bbox": [1, 2, 3, 4], "area": 9, "iscrowd": 0},
        {"id": 2, "image_id": 30, "category_id": 2, "bbox": [0, 0, 8, 2], "iscrowd": 1},
        {"id": 3, "image_id": 30, "category_id": 2, "bbox": [5, 5, 2, 2], "area": 4, "ignore": 1},
    ],
}


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="file.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return to_file


def result(image_id=7, category_id=9, bbox=(1, 2, 3, 4), score=0.5):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


def test_ground_truth_is_sorted_by_image_and_class_id(write):
    truth = load_ground_truth(write(DATASET))
    assert truth.class_names == ["two", "nine"] and truth.category_ids == [2, 9]
    assert truth.image.tolist() == [0, 0, 1]
    assert truth.classes.tolist() == [0, 0, 1]
    assert truth.boxes[2].tolist() == [1, 2, 4, 6]
    assert truth.sizes.tolist() == [4, 2, 3]  # without an area, the box's
    assert truth.crowd.tolist() == [True, False, False]
    assert truth.bounds().tolist() == [0, 2, 3]


def test_ignored_annotations_are_crowds(write):
    truth = load_ground_truth(write(DATASET), ignore_fields=("ignore",))
    assert truth.crowd.tolist() == [True, True, False]


def test_detections_are_sorted_and_limited_per_image_and_class(write):
    truth = load_ground_truth(write(DATASET, "gt.json"))
    scores = [0.1, 0.9, 0.5]
    entries = [result(score=s) for s in scores]
    entries += [result(category_id=2, score=0.3), result(image_id=30, score=0.2)]
    found = load_detections(write(entries), truth, max_dets=2)
    assert found.image.tolist() == [0, 1, 1, 1]
    assert found.scores.tolist() == [0.2, 0.9, 0.5, 0.3]
    assert found.classes.tolist() == [1, 1, 1, 0]
    assert found.bounds(2).tolist() == [0, 1, 4]


def test_no_detections_at_all(write):
    truth = load_ground_truth(write(DATASET, "gt.json"))
    found = load_detections(write([]), truth)
    assert found.boxes.shape == (0, 4) and found.bounds(2).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (result(image_id=1), r"results\[1\] of .*file.json has the image_id 1, which"),
        (result(category_id=1), r"results\[1\] of .*file.json has the category_id 1, which"),
        (
            result(bbox=[1, 2, 3]),
            r"results\[1\] of .*file.json has the bbox .* four finite numbers",
        ),
        (
            result(bbox=[1, 2, "a", 3]),
            r"results\[1\] of .*file.json has the bbox .* four finite numbers",
        ),
        (
            result(bbox=[1, 2, -3, 4]),
            r"results\[1\] of .*file.json has the bbox .* width and height",
        ),
        (result(bbox=[1, 2, float("nan"), 3]), r"results\[1\] of .*file.json has the bbox .*nan"),
        (result(score=float("inf")), r"results\[1\] of .*file.json has the score .*inf"),
    ],
)
def test_a_bad_result_is_named(write, entry, message):
    truth = load_ground_truth(write(DATASET, "gt.json"))
    with pytest.raises(ValueError, match=message):
        load_detections(write([result(), entry]), truth)


@pytest.mark.parametrize(
    ("part", "record", "message"),
    [
        ("annotations", None, r"annotations\[3\] of .*gt.json is None, but must be an object"),
        ("annotations", {"image_id": 7}, r"annotations\[3\] of .*gt.json has no category_id"),
        ("images", {"id": 1, "file_name": "c"}, r"images\[2\] of .*gt.json has no height"),
        ("categories", {"id": 1}, r"categories\[2\] of .*gt.json has no name"),
    ],
)
def test_a_bad_record_of_the_data_set_is_named(write, part, record, message):
    with pytest.raises(ValueError, match=message):
        load_ground_truth(write({**DATASET, part: [*DATASET[part], record]}, "gt.json"))


def test_a_file_that_was_cut_short_is_no_json(write):
    truth = load_ground_truth(write(DATASET, "gt.json"))
    with pytest.raises(ValueError, match="file.json is not valid JSON: "):
        load_detections(write('[{"bbox": [1, 2'), truth)


@pytest.mark.parametrize("content", ["{}", '[{"bbox": 3}]'])
def test_other_files_are_refused(write, content):
    truth = load_ground_truth(write(DATASET, "gt.json"))
    with pytest.raises(ValueError, match=r"file.json (is not a file of COCO res|has no image_id)"):
        load_detections(write(content), truth)
    with pytest.raises(ValueError, match="file.json .*COCO JSON: .* the list 'images'"):
        load_ground_truth(write(content))


def test_sizes_of_boxes_inside_out_are_zero():
    sizes = box_sizes(np.array([[0, 0, 9, 4], [5, 5, 3, 9]], dtype=float))
    assert sizes.tolist() == [6, 0]
