import pytest
import torch

from efpn_d2.inference.image_samples import check_image, cut_padding
from tests.inference.tiny_pyramid import write_image

pytestmark = pytest.mark.fast


def test_cells_that_the_image_reaches_are_kept():
    maps = torch.arange(2.0 * 8 * 8).reshape(2, 8, 8)
    cut = cut_padding(maps, (17, 12), 4)  # 4.25 and 3 cells
    assert torch.equal(cut, maps[:, :3, :5])
    assert torch.equal(cut_padding(maps[None].half(), (16.0, 12.5), 4), maps[None, :, :4, :4])
    assert cut_padding(maps.half(), (32, 32), 4).dtype == torch.float32


def test_the_size_of_a_file_is_width_and_height(tmp_path):
    write_image(tmp_path / "image.png", 50, 40)
    record = {"file_name": str(tmp_path / "image.png")}
    assert check_image(record, "BGR") == (50, 40)
    assert check_image({**record, "width": 50, "height": 40}, "BGR") == (50, 40)
    assert list(record) == ["file_name"]
    with pytest.raises(ValueError, match="Mismatched image shape"):
        check_image({**record, "width": 40, "height": 50}, "BGR")


def test_a_damaged_file_is_refused(tmp_path):
    write_image(tmp_path / "image.png", 50, 40)
    content = (tmp_path / "image.png").read_bytes()
    (tmp_path / "image.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"image.png' cannot be read as an image"):
        check_image({"file_name": str(tmp_path / "image.png")}, "BGR")
