import numpy as np
import pytest
from detectron2.data import detection_utils
from PIL import Image

from efpn_d2.data.image_reading import read_image
from efpn_d2.inspection.image_samples import check_image
from efpn_d2.visualization.sheet import ImageRecord

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_what_has_8_bits_is_read_as_by_detectron2(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path = tmp_path / "a.tif"
    Image.fromarray(pixels).convert(mode).save(path)
    image = read_image(path, "BGR")
    assert (image == detection_utils.read_image(str(path), "BGR")).all()
    assert image.shape == (6, 8, 3) and image.dtype == np.uint8


def test_more_than_8_bits_are_refused_wherever_images_are_read(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((6, 8), 1000, dtype=np.uint16)).save(path)
    readers = (
        lambda: read_image(path, "RGB"),
        lambda: check_image({"file_name": str(path)}, "BGR"),
        lambda: ImageRecord(path).pixels(),
    )
    for read in readers:
        with pytest.raises(ValueError, match=r"deep.png.* mode I;16, .*8 bits"):
            read()
