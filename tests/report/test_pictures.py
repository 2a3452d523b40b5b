import numpy as np
import pytest
from PIL import Image

from efpn_d2.report.pictures import write_picture

pytestmark = pytest.mark.fast


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)


def test_a_plain_image_is_copied_byte_by_byte(tmp_path, pixels):
    source = save(tmp_path / "a.png", pixels)
    picture = write_picture(source, tmp_path / "r", 4)
    assert picture == ("images/4.png", "images/4.png")
    assert (tmp_path / "r" / picture.file).read_bytes() == source.read_bytes()


def test_large_images_are_scaled_and_have_a_small_copy(tmp_path, pixels):
    picture = write_picture(
        save(tmp_path / "a.png", pixels), tmp_path, 0, max_side=40, thumb_side=20
    )
    assert Image.open(tmp_path / picture.file).size == (40, 24)
    assert Image.open(tmp_path / picture.thumb).size == (20, 12)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_images_are_brought_to_eight_bits(tmp_path, dtype):
    deep = np.linspace(1000, 5000, 12 * 10).reshape(12, 10).astype(dtype)
    picture = write_picture(save(tmp_path / "a.tif", deep), tmp_path, 0)
    shown = np.asarray(Image.open(tmp_path / picture.file))
    assert picture.file == "images/0.png" and shown.dtype == np.uint8
    assert (
        shown.min() == 0 and shown.max() == 255 and (np.diff(shown.ravel().astype(int)) >= 0).all()
    )


def test_other_formats_lose_nothing(tmp_path, pixels):
    picture = write_picture(save(tmp_path / "a.bmp", pixels), tmp_path, 0)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / picture.file)), pixels)


def test_orientation_is_followed(tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    source = save(tmp_path / "a.jpg", pixels, exif=exif)
    picture = write_picture(source, tmp_path, 0, max_side=40, thumb_side=20)
    assert Image.open(tmp_path / picture.file).size == (24, 40)
    assert Image.open(tmp_path / picture.thumb).size == (12, 20)
    # Copied as it is, it keeps the mark, which browsers follow.
    picture = write_picture(source, tmp_path, 1)
    assert Image.open(tmp_path / picture.file).getexif()[0x0112] == 6


def test_damaged_and_missing_images_are_named(tmp_path, pixels):
    source = save(tmp_path / "a.png", pixels)
    source.write_bytes(source.read_bytes()[:200])
    with pytest.raises((OSError, ValueError), match="truncated|broken"):
        write_picture(source, tmp_path, 0)
    with pytest.raises(OSError, match="missing.png"):
        write_picture(tmp_path / "missing.png", tmp_path, 1)
    assert not list((tmp_path / "images").glob("*"))
