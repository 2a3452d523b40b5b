import numpy as np
import pytest

from efpn_d2.data.datasets.box_format import suspect_boxes
from efpn_d2.data.datasets.validation import Report, clean_coco
from tests.data.datasets.trees import write_image

pytestmark = pytest.mark.fast

SIZES = {1: (64, 48), "b": (640, 480)}


def annotations(boxes, image_id=1):
    return [{"image_id": image_id, "bbox": list(box)} for box in boxes]


def random_boxes(number=200):
    """XYWH boxes of 8 to 60 px, within 640 x 480."""
    rng = np.random.default_rng(0)
    sides = rng.uniform(8, 60, (number, 2))
    corners = rng.uniform(0, 1, (number, 2)) * ((640, 480) - sides)
    return np.concatenate([corners, sides], axis=1)


def as_corners(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def kind(records):
    suspicion = suspect_boxes(records, SIZES)
    return suspicion and suspicion.kind


def test_boxes_of_x_y_width_and_height_are_not_suspected():
    boxes = random_boxes()
    assert kind(annotations(boxes.tolist(), "b")) is None
    boxes[::7, 2:] += 40  # some leave the image
    assert kind(annotations(boxes.tolist(), "b")) is None
    assert kind([]) is None


def test_corners_are_suspected_and_counted():
    boxes = as_corners(random_boxes()).tolist()
    suspicion = suspect_boxes(annotations(boxes, "b"), SIZES)
    assert suspicion.kind == "boxes_like_corners"
    leaving = sum(x + x1 > 641 or y + y1 > 481 for x, y, x1, y1 in boxes)
    assert 100 < leaving < 200 and f"{leaving} of 200 boxes" in suspicion.message
    assert "XYXY" in suspicion.message


def test_one_box_that_cannot_be_corners_is_enough():
    boxes = as_corners(random_boxes()).tolist()
    assert kind(annotations([*boxes, [50, 50, 20, 60]], "b")) is None
    assert kind(annotations([*boxes, [600, 400, 700, 450]], "b")) is None


def test_fractions_are_suspected():
    boxes = (random_boxes() / (640, 480, 640, 480)).tolist()
    suspicion = suspect_boxes(annotations(boxes, "b"), SIZES)
    assert suspicion.kind == "boxes_like_fractions" and "all 200 boxes" in suspicion.message
    # One pixel at the corner of an image.
    assert kind(annotations([[0, 0, 1, 1], [0, 0, 1, 1]])) is None
    assert kind(annotations([*boxes, [3, 3, 0.5, 0.5]], "b")) is None


@pytest.mark.parametrize(
    "odd", [None, {}, {"image_id": 1, "bbox": None}, {"image_id": [], "bbox": [0, 0, 900, 9]}]
)
def test_what_is_no_valid_box_does_not_count(odd):
    assert kind([odd, *annotations([[10, 10, 60, 40], [30, 20, 50, 30]])]) == "boxes_like_corners"


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([[10, 10, 60, 40], [30, 20, 50, 30]], "boxes_like_corners"),
        ([[0.2, 0.3, 0.1, 0.2], [0.5, 0.5, 0.3, 0.25]], "boxes_like_fractions"),
        ([[10, 10, 20, 10], [30, 20, 5, 8]], None),
    ],
)
def test_a_validation_says_so(tmp_path, boxes, expected):
    write_image(tmp_path / "a.jpg")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [
            {**a, "id": i, "category_id": 1, "area": 1.0, "iscrowd": 0}
            for i, a in enumerate(annotations(boxes))
        ],
        "categories": [{"id": 1, "name": "a"}],
    }
    report = Report("set", "set.json")
    report.count(clean_coco(content, tmp_path, report, progress=False))
    hints = [f for f in report.problems if f.kind.startswith("boxes_like")]
    assert [f.kind for f in hints] == [expected] * (expected is not None)
    if hints:
        assert (hints[0].file, hints[0].field, hints[0].action) == ("set.json", "bbox", "kept")
        assert hints[0].message in report.summary()
