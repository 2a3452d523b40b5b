import numpy as np
import pytest

from efpn_d2.evaluation.matching import match_detections
from efpn_d2.visualization.draw import (
    BLUE,
    GREEN,
    RED,
    Mark,
    draw_marks,
    enlarge,
    match_marks,
    outline_box,
    text_size,
)

pytestmark = pytest.mark.fast


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 200, (60, 80, 3), dtype=np.uint8)


def test_enlarge_makes_every_pixel_a_square(image):
    big = enlarge(image, 3)
    assert big.shape == (180, 240, 3)
    for dy in range(3):
        for dx in range(3):
            np.testing.assert_array_equal(big[dy::3, dx::3], image)


@pytest.mark.parametrize("zoom", [0, 1.5])
def test_zoom_must_be_whole_and_positive(image, zoom):
    with pytest.raises(ValueError, match="zoom must be a whole number"):
        enlarge(image, zoom)


def test_float_image_is_refused(image):
    with pytest.raises(ValueError, match="uint8 image, got .* float64"):
        draw_marks(image / 255, [])


def test_outline_box_rounds_outward_and_leaves_air():
    # 10.4 * 2 = 20.8 -> 20, 14.2 * 2 = 28.4 -> 29, then 2 + 1 pixels outward
    assert outline_box((10.4, 10.4, 14.2, 14.2), zoom=2, line_width=2) == (17, 17, 32, 32)


@pytest.mark.parametrize("zoom", [1, 2, 4])
@pytest.mark.parametrize("side", [4, 16])
@pytest.mark.parametrize("dashed", [False, True])
def test_object_pixels_stay_as_they_are(image, zoom, side, dashed):
    box = (30, 25, 30 + side, 25 + side)
    drawn = draw_marks(image, [Mark(box, RED, "stop 30", dashed)], zoom=zoom)
    x0, y0, x1, y1 = (v * zoom for v in box)
    np.testing.assert_array_equal(drawn[y0:y1, x0:x1], enlarge(image, zoom)[y0:y1, x0:x1])
    assert (drawn == RED).all(axis=2).sum() >= 2 * side  # and yet the outline is there


def test_outline_lies_where_it_should(image):
    drawn = draw_marks(image, [Mark((30, 25, 34, 29), GREEN)], line_width=1)
    painted = np.argwhere((drawn != image).any(axis=2))
    assert painted.min(axis=0).tolist() == [23, 28]
    assert painted.max(axis=0).tolist() == [30, 35]
    assert len(painted) == 4 * 8 - 4


def test_object_at_the_border_keeps_an_outline_on_all_sides(image):
    drawn = draw_marks(image, [Mark((0, 0, 80, 60), GREEN)], line_width=1)
    green = (drawn == GREEN).all(axis=2)
    assert green[0].all() and green[-1].all() and green[:, 0].all() and green[:, -1].all()


def test_box_outside_the_image_paints_nothing(image):
    drawn = draw_marks(image, [Mark((200, 200, 210, 210), GREEN), Mark((-50, -9, -40, -5), RED)])
    np.testing.assert_array_equal(drawn, image)


def test_labels_of_neighbours_cover_no_object(image):
    boxes = [(20, 20, 26, 26), (28, 20, 34, 26), (20, 28, 26, 34), (28, 28, 34, 34)]
    drawn = draw_marks(image, [Mark(b, BLUE, "no entry 12") for b in boxes], zoom=4)
    big = enlarge(image, 4)
    for x0, y0, x1, y1 in np.array(boxes) * 4:
        np.testing.assert_array_equal(drawn[y0:y1, x0:x1], big[y0:y1, x0:x1])


def test_drawing_leaves_its_input_alone_and_repeats_exactly(image):
    before = image.copy()
    marks = [Mark((10, 10, 20, 20), RED, "abc", True), Mark((12, 30, 18, 40), GREEN, "de")]
    first, second = draw_marks(image, marks), draw_marks(image, marks)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first, second)


def test_text_size_grows_with_text_and_is_zero_for_none():
    assert text_size("") == (0, 0)
    assert text_size("wide name")[0] > text_size("wide")[0] > 0


def test_match_marks_colours_and_names():
    gt_boxes, gt_classes = np.array([[0, 0, 9, 9], [20, 0, 29, 9]]), np.array([0, 7])
    boxes, classes = np.array([[0, 0, 9, 9], [40, 0, 49, 9]]), np.array([0, 1])
    scores = np.array([0.934, 0.5])
    result = match_detections(boxes, scores, classes, gt_boxes, gt_classes)
    marks = match_marks(result, boxes, scores, classes, gt_boxes, gt_classes, ["stop", "yield"])
    assert [(m.color, m.text, m.dashed) for m in marks] == [
        (RED, "7", True),  # no name is known for class 7
        (BLUE, "yield 50%", False),
        (GREEN, "stop 93%", False),
    ]
    assert marks[2].box == (0, 0, 9, 9)
