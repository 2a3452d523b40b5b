import numpy as np
import pytest

from efpn_d2.visualization.labels import leader_line, place_labels

pytestmark = pytest.mark.fast


def area_of(place, size):
    return [*place, place[0] + size[0], place[1] + size[1]]


def shared_pixels(a, b):
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def test_label_stands_above_its_box_if_there_is_room():
    assert place_labels(np.array([[50, 50, 60, 60]]), np.array([[30, 12]]), (100, 100)) == [
        (50, 38)
    ]


def test_label_goes_below_at_the_upper_border():
    assert place_labels(np.array([[50, 0, 60, 10]]), np.array([[30, 12]]), (100, 100)) == [(50, 10)]


def test_label_that_fits_nowhere_is_left_out():
    assert place_labels(np.array([[0, 0, 20, 20]]), np.array([[15, 10]]), (20, 20)) == [None]


def test_box_without_label_gets_none_but_keeps_others_off():
    boxes = np.array([[50, 50, 60, 60], [50, 36, 80, 50]])
    (place, none) = place_labels(boxes, np.array([[30, 12], [0, 0]]), (100, 100))
    assert none is None
    assert shared_pixels(area_of(place, (30, 12)), boxes[1]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_labels_cover_no_box_no_label_and_stay_inside(seed):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 280, (40, 2))
    boxes = np.hstack([corners, corners + rng.integers(4, 20, (40, 2))])
    sizes = np.stack([rng.integers(15, 50, 40), np.full(40, 13)], axis=1)
    places = place_labels(boxes, sizes, (300, 300))
    areas = [area_of(p, s) for p, s in zip(places, sizes, strict=True) if p]
    assert len(areas) > 10  # the scene is not so full that all are left out
    assert all(a[0] >= 0 and a[1] >= 0 and a[2] <= 300 and a[3] <= 300 for a in areas)
    for i, area in enumerate(areas):
        others = [*boxes.tolist(), *areas[:i]]
        assert all(shared_pixels(area, other) == 0 for other in others)


def test_leader_line_joins_the_nearest_points():
    box = np.array([0, 0, 10, 10])
    assert leader_line(box, (20, 30), (15, 10)) == (10, 10, 20, 30)
    assert leader_line(box, (2, 30), (4, 10)) == (4, 10, 4, 30)
    assert leader_line(box, (11, 0), (15, 10)) is None


def test_leader_line_does_not_run_over_a_box():
    # The ground above the first box is taken by a wall; a label beyond it would need a line
    # across the wall.
    boxes = np.array([[50, 50, 60, 60], [0, 30, 200, 48]])
    place = place_labels(boxes, np.array([[30, 12], [0, 0]]), (200, 200))[0]
    assert place[1] >= 48
