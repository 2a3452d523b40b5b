from pathlib import Path

import pytest

from efpn_d2.inspection.image_figures import crop_window, image_caption, write_image_figures

pytestmark = pytest.mark.fast


def test_a_crop_is_scaled_along_each_side_by_itself():
    window = crop_window((10, 4, 60, 40), "image.png", (60, 40), (30.0, 80.0))
    assert window == (5, 8, 30, 80)
    assert crop_window(None, "image.png", (60, 40), (30.0, 80.0)) is None


@pytest.mark.parametrize("crop", [(0, 0, 60.5, 40), (5, 0, 4, 9), (0, -1, 9, 9)])
def test_a_crop_outside_of_the_file_is_refused(crop):
    with pytest.raises(ValueError, match="is not within the image 'image.png' of 60 x 40 pixels"):
        crop_window(crop, "image.png", (60, 40), (600.0, 400.0))


@pytest.mark.parametrize(("boxes", "text"), [(0, "a"), (1, "a, 1 box"), (12, "a, 12 boxes")])
def test_a_caption_counts_boxes(boxes, text):
    assert image_caption("a", boxes) == text


def test_each_figure_gets_the_lines_of_its_images(tmp_path):
    from matplotlib.figure import Figure

    drawn = []

    def draw(lines):
        drawn.append(list(lines))
        return Figure()

    def make_lines(record):
        return [Path(record["file_name"]).name, "below"]

    records = [{"file_name": name} for name in ("a.jpg", "b.jpg")]
    write_image_figures(records, tmp_path / "all.png", make_lines, draw)
    write_image_figures(records, tmp_path / "out", make_lines, draw)
    lines = [["a.jpg", "below"], ["b.jpg", "below"]]
    assert drawn == [lines[0] + lines[1], *lines]
