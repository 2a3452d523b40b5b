import numpy as np
import pytest

from efpn_d2.data.synthetic import SyntheticConfig
from efpn_d2.data.synthetic.glyphs import RED, Layer, box, paint
from efpn_d2.data.synthetic.layout import Sign, plan_layout, visible_signs

pytestmark = pytest.mark.fast

CONFIG = SyntheticConfig(seed=3)


@pytest.fixture(scope="module")
def layouts():
    return [plan_layout(CONFIG, index) for index in range(500)]


def student_sizes(layouts):
    bounds = np.array([sign.bounds for layout in layouts for sign in layout.signs])
    return np.sqrt((bounds[:, 2:] - bounds[:, :2]).prod(axis=1)) / 2


def test_sizes_are_log_uniform_at_student_scale(layouts):
    sizes = student_sizes(layouts)
    assert 3.9 < sizes.min() < 4.2
    assert 60 < sizes.max() < 64.1
    shares = np.histogram(sizes, [3.9, 8, 16, 32, 64.1])[0] / len(sizes)
    # Placing drops few signs, so each octave holds a quarter.
    np.testing.assert_allclose(shares, 0.25, atol=0.035)


def test_size_limits_are_obeyed():
    config = SyntheticConfig(min_size=10, max_size=20)
    sizes = student_sizes([plan_layout(config, index) for index in range(30)])
    assert sizes.min() > 9.9
    assert sizes.max() < 20.1


def test_empty_and_crowded_shares(layouts):
    counts = np.array([len(layout.signs) for layout in layouts])
    assert 0.04 < (counts == 0).mean() < 0.11
    assert 0.06 < (counts > CONFIG.max_objects).mean() < 0.14
    assert counts.max() <= 40
    assert counts[counts > CONFIG.max_objects].min() >= 15


def test_all_classes_are_equally_frequent(layouts):
    classes = np.array([sign.category for layout in layouts for sign in layout.signs])
    shares = np.bincount(classes, minlength=8) / len(classes)
    np.testing.assert_allclose(shares, 1 / 8, atol=0.03)


def test_boxes_lie_inside_and_do_not_overlap(layouts):
    for layout in layouts:
        boxes = np.array([sign.bounds for sign in layout.signs]).reshape(-1, 4)
        assert (boxes >= 0).all()
        assert (boxes <= CONFIG.scene_size).all()
        low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
        high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
        overlap = (high > low).all(axis=2)
        np.testing.assert_array_equal(overlap, np.eye(len(boxes), dtype=bool))


def test_boxes_are_tight_around_the_painted_pixels():
    config = SyntheticConfig(student_size=128)
    signs = [sign for index in range(12) for sign in plan_layout(config, index).signs]
    assert len(signs) > 40
    for sign in signs:
        canvas = np.full((config.scene_size,) * 2 + (3,), 110, np.uint8)
        paint(canvas, sign.layers)
        ys, xs = np.nonzero(np.abs(canvas.astype(np.int16) - 110).max(axis=2) > 12)
        painted = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        np.testing.assert_allclose(painted, sign.bounds, atol=1.6)


def test_some_signs_are_partly_hidden_and_none_mostly(layouts):
    visible = np.array([sign.visible for layout in layouts for sign in layout.signs])
    assert visible.min() >= CONFIG.min_visible
    assert 0.07 < (visible < 0.98).mean() < 0.2


def test_no_occlusion_when_switched_off():
    config = SyntheticConfig(occluded_fraction=0.0)
    for index in range(20):
        layout = plan_layout(config, index)
        assert layout.occluders == ()
        assert all(sign.visible == 1.0 for sign in layout.signs)


def test_visible_share_of_a_square():
    square = Sign(6, (Layer(box(40, 40, x=50, y=50), RED),))
    quarter = Layer(box(20, 100, x=70, y=50), RED)  # hides x from 60 on
    most = Layer(box(40, 100, x=58, y=50), RED)  # hides x from 38 on
    (kept,) = visible_signs([square], [quarter], 100, min_visible=0.4)
    assert kept.visible == pytest.approx(0.75, abs=0.03)
    assert visible_signs([square], [most], 100, min_visible=0.4) == ()
    # Two covers of the same place count once.
    (kept,) = visible_signs([square], [quarter, quarter], 100, min_visible=0.4)
    assert kept.visible == pytest.approx(0.75, abs=0.03)


def outlines(config, index):
    return [sign.outline.tolist() for sign in plan_layout(config, index).signs]


def test_layout_follows_from_seed_split_and_index_alone():
    config = SyntheticConfig(empty_fraction=0.0)
    same = SyntheticConfig(empty_fraction=0.0, num_images=7, variant="native1x")
    assert outlines(config, 5) == outlines(same, 5)
    for other in (
        outlines(config, 6),
        outlines(SyntheticConfig(empty_fraction=0.0, seed=1), 5),
        outlines(SyntheticConfig(empty_fraction=0.0, split="val"), 5),
    ):
        assert outlines(config, 5) != other
