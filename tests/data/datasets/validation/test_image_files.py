import numpy as np
import pytest
from detectron2.data import detection_utils
from PIL import Image

from efpn_d2.data.datasets.validation.image_files import inspect_images, rotate_points
from tests.data.datasets.trees import truncate, write_image

pytestmark = pytest.mark.fast


def inspect(path, **options):
    (facts,) = inspect_images([path], **options)
    return facts


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp"])
def test_whole_truncated_and_missing_files(tmp_path, name):
    path = write_image(tmp_path / name, 64, 48)
    facts = inspect(path)
    assert (facts.width, facts.height, facts.mode, facts.problem) == (64, 48, "RGB", "")
    truncate(path, 0.6)
    facts = inspect(path)
    assert facts.problem == "unreadable_image"
    assert "get the file again" in facts.message
    truncate(path, 0.001)
    assert inspect(path).problem == "unreadable_image"
    path.unlink()
    assert inspect(path).problem == "missing_image"


def test_a_complete_file_is_not_decoded_unless_asked(tmp_path):
    path = write_image(tmp_path / "a.png", 64, 48)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # damage inside, with the end in place
    path.write_bytes(bytes(content))
    assert inspect(path).problem == ""
    assert inspect(path, decode=True).problem == "unreadable_image"


def test_bytes_after_the_end_do_no_harm(tmp_path):
    path = write_image(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + b"more than an image")
    assert inspect(path).problem == ""


def test_16_bits_are_refused_for_what_detectron2_would_make_of_them(tmp_path):
    pixels = np.full((8, 8), 1000, dtype=np.uint16)  # dark: 1.5 % of white
    path = save(tmp_path / "a.png", pixels)
    assert detection_utils.read_image(str(path), "BGR").min() == 255
    facts = inspect(path)
    assert facts.problem == "image_16_bit"
    assert "convert it to 8 bits" in facts.message


def test_grayscale_and_palette_are_read_as_colours(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    path = save(tmp_path / "a.png", pixels)
    assert (inspect(path).problem, inspect(path).mode) == ("", "L")
    image = detection_utils.read_image(str(path), "BGR")
    assert (image == pixels[..., None]).all()
    Image.fromarray(pixels).convert("P").save(tmp_path / "p.png")
    assert inspect(tmp_path / "p.png").problem == ""


def test_images_of_30000_pixels(tmp_path):
    wide = save(tmp_path / "wide.png", np.zeros((20, 30000), dtype=np.uint8))
    facts = inspect(wide)
    assert (facts.width, facts.height, facts.problem) == (30000, 20, "")
    # More pixels than Pillow opens: only the header says so, which is all that is read.
    Image.new("1", (30000, 8000)).save(tmp_path / "huge.png")
    with pytest.raises(Image.DecompressionBombError):
        detection_utils.read_image(str(tmp_path / "huge.png"), "BGR")
    limit = Image.MAX_IMAGE_PIXELS
    facts = inspect(tmp_path / "huge.png")
    assert facts.problem == "image_too_large"
    assert "30000 x 8000 pixels" in facts.message and "tiles" in facts.message
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_points_are_where_detectron2_shows_them(tmp_path, orientation):
    pixels = np.zeros((12, 20, 3), dtype=np.uint8)
    pixels[2:5, 11:17] = 255  # the box (11, 2) - (17, 5)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", pixels, exif=exif)
    facts = inspect(path)
    assert facts.orientation == orientation
    assert facts.stored_size == (20, 12)
    shown = detection_utils.read_image(str(path), "BGR")
    assert shown.shape[:2] == (facts.height, facts.width)
    points = rotate_points([(11, 2), (17, 5)], orientation, (20, 12))
    (x0, x1), (y0, y1) = (sorted(values) for values in zip(*points, strict=True))
    expected = np.zeros_like(shown)
    expected[y0:y1, x0:x1] = 255
    assert (shown == expected).all()
