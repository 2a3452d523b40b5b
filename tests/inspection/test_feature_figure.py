import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from efpn_d2.inspection.feature_figure import (
    FeatureLine,
    FeaturePanel,
    color_limits,
    draw_feature_figure,
)

pytestmark = pytest.mark.fast

RNG = np.random.default_rng(0)


def make_line(
    values: list[np.ndarray], size: tuple[float, float], boxes=(), cell: int = 2, **options
) -> FeatureLine:
    return FeatureLine(
        panels=[FeaturePanel(f"panel {i}", v, f"caption {i}") for i, v in enumerate(values)],
        scale_label="L2 distance to target's mean cell",
        cell=cell,
        size=size,
        boxes=np.array(boxes, dtype=float).reshape(-1, 4),
        image=np.full((int(size[1]), int(size[0]), 3), 100, dtype=np.uint8),
        caption="image.png, 2 boxes",
        **options,
    )


def random_line(width: int, height: int, panels: int = 3, **options) -> FeatureLine:
    shape = (-(-height // 2), -(-width // 2))
    return make_line([RNG.random(shape) for _ in range(panels)], (width, height), **options)


def draw(*lines: FeatureLine, note: str = "A note."):
    """The figure, its maps (with colour scale) by line, and its pixels."""
    figure = draw_feature_figure(lines, note)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    maps = [ax.images[0] for ax in figure.axes if ax.images and ax.images[0].get_array().ndim == 2]
    return figure, maps, np.asarray(canvas.buffer_rgba())[:, :, :3]


def pixel(figure, pixels: np.ndarray, ax, x: float, y: float) -> np.ndarray:
    """The colour drawn at a place of the network's input."""
    column, row = ax.transData.transform((x, y))
    return pixels[len(pixels) - 1 - int(row), int(column)]


def test_all_panels_of_a_line_have_one_scale_and_other_lines_their_own():
    low, high = RNG.random((8, 8)), 10 + RNG.random((8, 8))
    first = make_line([low, high, low], (16, 16))
    second = make_line([low, low, low], (16, 16))
    _, maps, _ = draw(first, second)
    limits = [image.get_clim() for image in maps]
    assert limits == [color_limits(first)] * 3 + [color_limits(second)] * 3
    assert limits[0][0] < 0.1 and limits[0][1] > 10.9
    assert limits[3][1] < 1
    bars = [image.colorbar for image in maps if image.colorbar]
    assert [(bar.vmin, bar.vmax) for bar in bars] == [limits[0], limits[3]]
    assert all(sum(bool(t.get_text()) for t in bar.ax.get_yticklabels()) >= 3 for bar in bars)


def test_limits_are_percentiles_of_all_cells_together():
    line = make_line([np.arange(600.0).reshape(20, 30), np.arange(600.0, 1001).reshape(1, -1)],
                     (802, 40))  # fmt: skip
    # 1001 values 0 to 1000: the 0.5th percentile is 5.
    np.testing.assert_allclose(color_limits(line), (5, 995))


def test_a_constant_map_has_a_scale():
    low, high = color_limits(make_line([np.full((4, 4), 3.0)], (8, 8)))
    assert (low, high) == (3, 4)


def test_only_what_is_shown_counts_for_the_scale():
    values = np.zeros((8, 8))
    values[0, 0] = 100  # outside
    values[2:4, 3:6] = [[1, 2, 3], [4, 5, 6]]
    line = make_line([values], (16, 16), window=(7, 4, 11, 8))  # cells of columns 3-5, rows 2-3
    low, high = color_limits(line)
    assert 1 <= low < 1.1 and 5.9 < high <= 6


def test_cells_of_a_panel_of_its_own_stride_count_where_they_are_shown():
    coarse = np.zeros((2, 2))
    coarse[1, 0] = 5  # x from 0 to 8, y from 8 to 16
    line = make_line([np.zeros((8, 8)), coarse], (16, 16))
    line.panels[1] = line.panels[1]._replace(cell=8)
    # Of 17 values 16 are 0, so that the 99.5th percentile is 0.92 of the way to the last.
    assert color_limits(line._replace(window=(0, 8, 8, 16)))[1] == pytest.approx(4.6)
    assert color_limits(line._replace(window=(8, 8, 16, 16))) == (0, 1)  # nothing but zeros


def test_given_limits_are_kept():
    line = make_line([np.full((4, 4), 3.0)], (8, 8), limits=(0.0, 2.0))
    _, maps, _ = draw(line)
    assert color_limits(line) == (0, 2) == maps[0].get_clim()


@pytest.mark.parametrize("size", [(24, 16), (23, 15)])  # the last cell of the second is cut
@pytest.mark.parametrize("window", [None, (6.0, 2.0, 20.0, 14.0)])
def test_the_pixels_of_a_box_are_in_the_cells_that_it_covers(size, window):
    values = np.zeros((8, 12))
    values[2:4, 4:7] = 1  # what the box covers: x from 8 to 14, y from 4 to 8
    figure, maps, pixels = draw(make_line([values], size, [[8, 4, 14, 8]], window=window))
    ax = maps[0].axes
    hot = pixel(figure, pixels, ax, 11, 6)
    cold = pixel(figure, pixels, ax, 17, 6)
    assert np.abs(hot.astype(int) - cold).max() > 100
    for x, y in itertools.product((8.3, 13.7), (4.3, 7.7)):  # just inside of the outline
        np.testing.assert_array_equal(pixel(figure, pixels, ax, x, y), hot)
    (outline,) = ax.patches
    points = outline.get_window_extent()
    inner = ax.transData.transform([(8, 8), (14, 4)])
    # The line runs around the box, as near as its width allows (in pixels at 100 per inch).
    gaps = np.abs(np.array([points.p0, points.p1]) - inner)
    np.testing.assert_allclose(gaps, (0.9 / 2 + 0.5) * 100 / 72, atol=1e-6)
    assert (points.p0 < inner[0]).all() and (points.p1 > inner[1]).all()


def test_the_image_is_drawn_where_its_maps_are():
    line = make_line([np.zeros((4, 6))], (12, 8))
    image = np.zeros((16, 24, 3), dtype=np.uint8)  # twice the network's input
    image[4:8, 12:20] = 255  # x from 6 to 10, y from 2 to 4
    figure, maps, pixels = draw(line._replace(image=image))
    ax = figure.axes[0]
    assert ax.get_xlim() == maps[0].axes.get_xlim() and ax.get_ylim() == maps[0].axes.get_ylim()
    assert pixel(figure, pixels, ax, 6.3, 2.3).min() == 255
    assert pixel(figure, pixels, ax, 9.7, 3.7).min() == 255
    assert pixel(figure, pixels, ax, 5.5, 2.5).max() == 0


@pytest.mark.parametrize(
    "lines",
    [
        [random_line(96, 96, 4), random_line(96, 96, 4)],
        [random_line(400, 90, 2)],
        [random_line(63, 151, 3), random_line(120, 80, 3)],
        [random_line(96, 96, 1, boxes=[[-5, -5, 200, 200]])],
    ],
)
def test_no_text_runs_over_another_text_or_panel(lines):
    long = "a_very_long_name_" * 4
    lines = [
        line._replace(
            caption=f"{long}.png, 12 boxes",
            panels=[
                p._replace(
                    title=f"P'2, model {i} {long}", caption="$L_{glob}$ 0.123   $L_{pos}$ 1.23"
                )
                for i, p in enumerate(line.panels)
            ],
        )
        for line in lines
    ]
    figure, _, pixels = draw(*lines, note="Some words of a note. " * 20)
    renderer = figure.canvas.get_renderer()
    panels = [ax.get_window_extent() for ax in figure.axes]
    texts = [t for ax in figure.axes for t in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    texts += figure.texts
    areas = [t.get_window_extent(renderer) for t in texts if t.get_text()]
    assert (
        len(areas)
        == 1
        + sum(2 + 2 * len(line.panels) for line in lines[:1])
        + sum(2 + len(line.panels) for line in lines[1:])
        + 1
    )
    for a, b in itertools.combinations(areas, 2):
        assert not a.overlaps(b)
    for a, b in itertools.product(areas, panels):
        assert not a.overlaps(b)
    height, width = pixels.shape[:2]
    for area in areas:
        assert area.x0 >= 0 and area.y0 >= 0 and area.x1 <= width and area.y1 <= height


def test_free_places_stay_free():
    line = random_line(32, 32)
    below = line._replace(image=None, caption="", panels=[None, *line.panels[1:]])
    figure, maps, _ = draw(line, below)
    assert len(maps) == 5
    assert [ax.axison for ax in figure.axes].count(False) == 2


def test_lines_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"equally many panels, got \[2, 3\]"):
        draw_feature_figure([random_line(32, 32, 2), random_line(32, 32, 3)], "")
    with pytest.raises(ValueError, match="equally many panels"):
        draw_feature_figure([], "")
