import math

import numpy as np
import pytest
from detectron2.structures import BoxMode

from efpn_d2.analysis.objects import read_objects
from tests.analysis.helpers import make_record

pytestmark = pytest.mark.fast


def test_boxes_at_the_input_scale():
    """Shorter side 100 to 200; the second image is limited by its longer side, 300 to 450."""
    records = [
        make_record([[10, 20, 30, 40]]),
        make_record([[10, 20, 40, 60]], height=300, width=100, mode=BoxMode.XYXY_ABS),
        make_record([]),
    ]
    objects = read_objects(records, 200, 450)
    assert objects.image_sizes.tolist() == [[200, 240], [450, 150], [200, 240]]
    assert objects.boxes.tolist() == [[20, 40, 80, 120], [15, 30, 60, 90]]
    assert objects.images.tolist() == [0, 1]
    np.testing.assert_allclose(objects.scales, [2, 1.5, 2])
    np.testing.assert_allclose(objects.sizes, [math.sqrt(60 * 80), math.sqrt(45 * 60)])
    np.testing.assert_allclose(objects.file_sizes, [math.sqrt(30 * 40), math.sqrt(30 * 40)])
    assert objects.objects_per_image.tolist() == [1, 1, 0]


def test_zero_leaves_images_as_they_are():
    objects = read_objects([make_record([[1, 2, 3, 4]])], 0, 50)
    assert objects.image_sizes.tolist() == [[100, 120]]
    assert objects.boxes.tolist() == [[1, 2, 4, 6]]


def test_boxes_end_at_the_image_and_what_is_no_object_is_counted():
    record = make_record(
        [[-10, 90, 30, 40], [5, 5, 0, 3], [130, 10, 9, 9], [9, 9, -4, 3], [1, 1, 2, 2]]
    )
    record["annotations"][-1]["iscrowd"] = 1
    objects = read_objects([record], 0, 0)
    assert objects.boxes.tolist() == [[0, 90, 20, 100]]
    assert objects.left_out == {"marked as crowd": 1, "boxes without area in their image": 3}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([make_record([[1, 2, math.nan, 4]])], r"x.json: .* 'a.png' has the box \[1, 2, nan, 4\]"),
        ([make_record([[1, 2, 3]])], "which is not four finite numbers"),
        ([make_record([], height=None)], "'a.png' has the height None and the width 120"),
        ([make_record([])], "x.json has no object"),
        ([make_record([[0, 0, 0, 0]])], "x.json has no object"),
        ([], "x.json has no object"),
    ],
)
def test_bad_records_are_named(records, message):
    with pytest.raises(ValueError, match=message):
        read_objects(records, 200, 400, "x.json")
