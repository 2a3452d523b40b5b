import itertools

import numpy as np
import pytest

from efpn_d2.data.synthetic.glyphs import (
    CLASS_NAMES,
    GLYPHS,
    Layer,
    box,
    disc,
    fill_mask,
    paint,
)

pytestmark = pytest.mark.fast


def render(glyph, size=64, offset=0.0, canvas_size=64, background=0):
    canvas = np.full((canvas_size, canvas_size, 3), background, np.uint8)
    paint(canvas, [Layer((x.points + 0.5) * size + offset, x.color) for x in glyph.layers])
    return canvas


def test_class_names_are_unique():
    assert len(set(CLASS_NAMES)) == len(GLYPHS) == 8


def test_outlines_fill_the_unit_square():
    for glyph in GLYPHS:
        np.testing.assert_allclose(glyph.outline.min(axis=0), -0.5, atol=1e-12)
        np.testing.assert_allclose(glyph.outline.max(axis=0), 0.5, atol=1e-12)


def test_all_layers_lie_inside_the_outline():
    for glyph in GLYPHS:
        inside = fill_mask((glyph.outline + 0.5) * 256, 256).astype(bool)
        for layer in glyph.layers[1:]:
            assert inside[fill_mask((layer.points + 0.5) * 256, 256).astype(bool)].all()


def test_classes_of_one_outline_differ_inside_only():
    groups = {}
    for glyph in GLYPHS:
        groups.setdefault(glyph.name.split("_")[0], []).append(glyph)
    assert {name: len(members) for name, members in groups.items()} == {
        "circle": 3,
        "triangle": 3,
        "square": 2,
    }
    for members in groups.values():
        for one, other in itertools.combinations(members, 2):
            difference = np.abs(render(one).astype(int) - render(other)).max(axis=2)
            assert (difference > 50).mean() > 0.02, (one.name, other.name)
            # The rim, by which they are found, is the same.
            border = np.ones((64, 64), bool)
            border[12:56, 12:52] = False
            assert difference[border].max() == 0, (one.name, other.name)


def test_every_glyph_survives_a_horizontal_flip():
    for glyph in GLYPHS:
        image = render(glyph).astype(int)
        assert np.abs(image - image[:, ::-1]).mean() < 1.5, glyph.name


def test_paint_mixes_by_covered_area():
    canvas = np.zeros((4, 4, 3), np.uint8)
    # Covers pixel (1, 1) wholly, a quarter of pixel (2, 1) and nothing of pixel (3, 1).
    paint(canvas, [Layer(box(1.25, 1.0, x=1.625, y=1.5), (200, 100, 40))])
    assert canvas[1, 1].tolist() == [200, 100, 40]
    # OpenCV fills up to one fine pixel (1/8) more at the lower edges.
    np.testing.assert_allclose(canvas[1, 2], [50, 25, 10], atol=200 / 8)
    assert canvas[1, 3].max() == 0
    assert canvas[0].max() <= 200 / 8


def test_paint_keeps_the_background_exactly_and_clips():
    rng = np.random.default_rng(0)
    canvas = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    before = canvas.copy()
    paint(canvas, [Layer(disc(6.0, x=-2.0, y=10.0), (0, 0, 0))])
    paint(canvas, [Layer(disc(3.0, x=40.0, y=10.0), (0, 0, 0))])
    np.testing.assert_array_equal(canvas[:, 5:], before[:, 5:])
    assert canvas[10, 0].max() == 0


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("size", [8, 21.6, 60, 100])
def test_paint_reaches_exactly_to_the_box(size, offset):
    for glyph in GLYPHS:
        low, high = 10 + offset, 10 + offset + size
        image = render(glyph, size, low, canvas_size=128, background=110)
        changed = np.abs(image.astype(int) - 110).max(axis=2) > 12
        for axis in (0, 1):
            where = np.flatnonzero(changed.any(axis=axis))
            # A triangle's tip covers too little of its last pixel to be seen.
            assert low - 1 <= where[0] <= low + 1.5, (glyph.name, axis)
            assert high - 1.5 <= where[-1] + 1 <= high + 1, (glyph.name, axis)
