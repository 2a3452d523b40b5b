import numpy as np
import pytest
from PIL import Image

from efpn_d2.evaluation.matching import UNMATCHED, MatchResult
from efpn_d2.visualization.draw import BLUE, GREEN, RED, YELLOW
from efpn_d2.visualization.sheet import (
    ImageRecord,
    best_window,
    choose_zoom,
    count_text,
    select_informative,
    write_image_sheet,
)

pytestmark = pytest.mark.fast


def result(found, missed, false):
    """A match result with the given counts."""
    positives = np.arange(found + false) < found
    return MatchResult(
        positives,
        ~positives,
        np.arange(found + missed) >= found,
        np.where(positives, np.arange(found + false), UNMATCHED),
    )


def record(size=(120, 90), noise=40, **kwargs):
    rng = np.random.default_rng(3)
    image = rng.integers(100 - noise, 101 + noise, (size[1], size[0], 3), dtype=np.uint8)
    defaults = {
        "gt_boxes": [[10, 10, 20, 20], [50, 50, 56, 56]],
        "gt_classes": np.array([0, 1]),
        "boxes": [[10, 10, 20, 20], [80, 20, 90, 30], [1, 1, 5, 5]],
        "scores": np.array([0.9, 0.8, 0.1]),
        "classes": np.array([0, 1, 0]),
    }
    return ImageRecord(image, **{**defaults, **kwargs})


def has_color(picture, color):
    return bool((picture == color).all(axis=2).any())


def test_selection_takes_turns_between_missed_many_and_clean():
    results = [
        result(1, 0, 0),  # clean
        result(3, 5, 0),  # most missed
        result(20, 1, 1),  # most objects
        result(4, 0, 0),  # cleanest
        result(2, 0, 6),  # most false positives
        result(0, 2, 0),
    ]
    assert select_informative(results, 3) == [1, 2, 3]
    # second turn: next missed (5), next in objects that is new (4 is 2 objects, 5 is taken), ...
    assert select_informative(results, 4) == [1, 2, 3, 5]
    assert sorted(select_informative(results, 99)) == list(range(6))


def test_selection_fills_up_with_images_without_objects_most_false_first():
    assert select_informative([result(0, 0, 0), result(0, 0, 2), result(0, 0, 1)], 2) == [1, 2]


def test_selection_prefers_the_earlier_of_equals():
    assert select_informative([result(1, 1, 0)] * 4, 2) == [0, 1]


def test_counts_as_text():
    assert count_text([result(2, 1, 3), result(1, 0, 0)]) == "4 objects: 3 found, 1 missed, 3 false"


@pytest.mark.parametrize(
    "side, image_size, expected",
    [
        (14, (1000, 800), 1),  # large enough at 1x
        (7, (1000, 800), 2),  # 7 px need 2x, the image is then cut
        (2, (1000, 800), 4),  # never beyond 4x
        (50, (100, 100), 4),  # a small image is shown whole and large
        (50, (250, 160), 3),  # limited by the panel's height, 480 / 160
    ],
)
def test_zoom(side, image_size, expected):
    boxes = np.array([[0, 0, side, side]] * 4)
    assert choose_zoom(boxes, image_size, (786, 480)) == expected


def test_window_frames_the_heavier_cluster_and_stays_inside():
    boxes = np.array([[5, 5, 10, 10], [900, 700, 910, 710], [940, 740, 950, 750]])
    x, y = best_window(boxes, np.ones(3), (960, 760), (100, 100))
    assert x <= 900 and x + 100 >= 950 and y <= 700 and y + 100 >= 750
    assert 0 <= x <= 860 and 0 <= y <= 660
    assert best_window(boxes, np.array([9, 1, 1]), (960, 760), (100, 100)) == (0, 0)
    assert best_window(np.zeros((0, 4)), np.zeros(0), (100, 80), (40, 40)) == (30, 20)


def test_sheet_shows_truth_left_and_verdict_right(tmp_path):
    path = tmp_path / "new" / "sheet.png"
    assert write_image_sheet(path, [record()], ["ring", "cross"], max_images=1) == [0]
    picture = np.array(Image.open(path).convert("RGB"))
    assert picture.shape[1] == 1600
    left, right = picture[64:, :800], picture[64:, 800:]
    assert has_color(left, YELLOW)
    assert not any(has_color(left, color) for color in (GREEN, BLUE, RED))
    assert all(has_color(right, color) for color in (GREEN, BLUE, RED))
    assert not has_color(right, YELLOW)


def test_crowd_is_neither_missed_nor_makes_false_positives(tmp_path):
    crowd = record(gt_boxes=[[0, 0, 120, 90]], gt_classes=np.array([1]), gt_crowd=np.array([True]))
    crowd.boxes, crowd.scores = crowd.boxes[1:2], crowd.scores[1:2]
    crowd.classes = crowd.classes[1:2]
    write_image_sheet(tmp_path / "sheet.png", [crowd], ["ring", "cross"])
    right = np.array(Image.open(tmp_path / "sheet.png").convert("RGB"))[64:, 800:]
    assert not any(has_color(right, color) for color in (GREEN, BLUE, RED))


def test_file_is_read_and_named(tmp_path):
    Image.fromarray(record().image).save(tmp_path / "scene.png")
    from_file = ImageRecord(tmp_path / "scene.png")
    assert from_file.name == "scene.png"
    np.testing.assert_array_equal(from_file.pixels(), record().image)


def test_large_sheet_is_reduced_and_keeps_the_colours_of_the_marks(tmp_path):
    path = tmp_path / "sheet.png"
    records = [record((400, 240), noise=99)]
    write_image_sheet(path, records, ["ring", "cross"])
    full = path.stat().st_size
    write_image_sheet(path, records, ["ring", "cross"], max_bytes=1000)
    assert path.stat().st_size < full
    picture = np.array(Image.open(path).convert("RGB"))
    assert all(has_color(picture, color) for color in (GREEN, BLUE, RED, YELLOW))


def test_sheet_is_the_same_every_time(tmp_path):
    records = [record(), record((64, 64)), ImageRecord(np.zeros((50, 50, 3), np.uint8))]
    for name in ("a.png", "b.png"):
        write_image_sheet(tmp_path / name, records, ["ring", "cross"])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_records_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one image"):
        write_image_sheet(tmp_path / "sheet.png", [], [])
