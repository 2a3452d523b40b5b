import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from efpn_d2.inspection.mask_figure import LevelMask, draw_mask_figure, mask_line

pytestmark = pytest.mark.fast

BOX = [8, 4, 14, 8]


def make_line(boxes=(BOX,), size=(24, 16), contrast=0.25, image=None, **options):
    """Masks of stride 2 and 8 that are 1 in one corner's cell and 0.1 elsewhere."""
    if image is None:
        image = np.full((size[1], size[0], 3), 100, dtype=np.uint8)
    masks = []
    for level, stride, gain in (("p2_prime", 2, 0.125), ("p3", 8, -0.001)):
        values = np.full((-(-size[1] // stride), -(-size[0] // stride)), 0.1)
        values[0, 0] = 1
        masks.append(LevelMask(level, stride, gain, values, contrast))
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    return mask_line(masks, image, size, boxes, caption="image.png", **options)


def draw(*lines, model="model.pth"):
    figure = draw_mask_figure(lines, model)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    panels = [ax for ax in figure.axes if len(ax.images) == 2]  # the mask on the image
    return figure, panels, np.asarray(canvas.buffer_rgba())[:, :, :3].astype(int)


def pixel(pixels, ax, x, y):
    """The colour drawn at a place of the network's input."""
    column, row = ax.transData.transform((x, y))
    return pixels[len(pixels) - 1 - int(row), int(column)]


def test_titles_name_level_stride_and_gamma_and_captions_the_contrast():
    line = make_line()
    assert [p.title for p in line.panels] == ["P'2, stride 2, γ 0.12", "P3, stride 8, γ -0.001"]
    assert [p.caption for p in line.panels] == ["contrast +0.25"] * 2
    assert [p.caption for p in make_line(contrast=-0.5).panels] == ["contrast -0.50"] * 2
    assert [p.caption for p in make_line(contrast=None).panels] == ["", ""]


def test_the_note_explains_the_contrast_only_where_there_is_one():
    for contrast, explained in ((0.25, True), (None, False)):
        figure, _, _ = draw(make_line(contrast=contrast))
        assert ("Contrast:" in figure.texts[-1].get_text()) == explained


def test_the_scale_is_from_0_to_1_whatever_the_values():
    figure, panels, _ = draw(make_line(), make_line())
    assert len(panels) == 4
    assert all(ax.images[1].get_clim() == (0, 1) for ax in panels)
    bars = [ax.images[1].colorbar for ax in panels if ax.images[1].colorbar]
    assert [(bar.vmin, bar.vmax, bar.extend) for bar in bars] == [(0, 1, "neither")] * 2


@pytest.mark.parametrize("window", [None, (1.0, 1.0, 20.0, 15.0)])
@pytest.mark.parametrize("size", [(24, 16), (23, 15)])  # the last cell of the second is cut
def test_each_mask_lies_where_its_cells_are(size, window):
    _, panels, pixels = draw(make_line(boxes=(), size=size, window=window))
    for ax, stride in zip(panels, (2, 8), strict=True):
        hot = pixel(pixels, ax, 1.5, 1.5)
        inside, outside = stride - 0.3, stride + 0.3
        if inside > 1.5:
            np.testing.assert_array_equal(pixel(pixels, ax, inside, inside), hot)
        for x, y in ((outside, 1.5), (1.5, outside)):
            assert np.abs(pixel(pixels, ax, x, y) - hot).max() > 100


def test_the_image_shows_through_in_grey_where_it_is():
    image = np.zeros((32, 48, 3), dtype=np.uint8)  # twice the network's input
    image[16:, 24:] = (255, 0, 0)
    _, panels, pixels = draw(make_line(boxes=(), image=image))
    for ax in panels:
        dark, red = pixel(pixels, ax, 11.5, 12), pixel(pixels, ax, 12.5, 12)
        assert red.sum() > dark.sum() + 30
        assert np.ptp(red - dark) <= 2  # grey is added, no red
        np.testing.assert_array_equal(pixel(pixels, ax, 12.5, 7.5), dark)


def test_boxes_are_on_every_panel_and_hide_less_than_a_pixel_around_a_small_object():
    figure, panels, pixels = draw(make_line(size=(96, 96), boxes=[[40, 40, 44, 44]]))
    for ax in (figure.axes[0], *panels):
        (outline,) = ax.patches
        box = outline.get_bbox()
        assert 39.5 < box.x0 < 40 and 44 < box.x1 < 44.5  # the middle of its lines
    for x, y in itertools.product((41, 43), (41, 43)):
        corner, middle = (pixel(pixels, panels[1], *at) for at in ((x, y), (42, 42)))
        np.testing.assert_array_equal(corner, middle)


def test_any_name_of_a_model_can_be_written():
    figure, _, _ = draw(make_line(), model="$a_b$ ^{.pth")
    assert r"Masks of \$a_b\$ ^{.pth over" in figure.texts[-1].get_text()
