"""Single images with their boxes, at the scale of testing."""

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import check_image_size
from torch import Tensor

from efpn_d2.data.image_reading import read_image
from efpn_d2.data.mappers import DetectionMapper


def build_test_mapper(cfg: CfgNode, scale: int = 1) -> DetectionMapper:
    """Loads an image with its boxes, if it has any, at ``scale`` times the scale of testing.

    Crowds are no objects, as in training.
    """
    short, long = scale * cfg.INPUT.MIN_SIZE_TEST, scale * cfg.INPUT.MAX_SIZE_TEST
    resize = T.ResizeShortestEdge([short, short], long)
    return DetectionMapper(is_train=True, augmentations=[resize], image_format=cfg.INPUT.FORMAT)


def check_image(record: Mapping[str, Any], image_format: str) -> tuple[int, int]:
    """Width and height of an image file.

    Args:
        record: ``file_name`` and, optionally, ``width`` and ``height``.
        image_format: ``INPUT.FORMAT`` of a config.

    Raises:
        ValueError: it cannot be read, or is not of the size that the record says.
    """
    path = record["file_name"]
    try:
        image = read_image(path, image_format)
    except Exception as error:  # Pillow raises nearly anything on damaged files
        raise ValueError(f"'{path}' cannot be read as an image: {error}") from error
    check_image_size(dict(record), image)
    height, width = image.shape[:2]
    return width, height


def cut_padding(maps: Tensor, size: tuple[float, float], stride: int) -> Tensor:
    """Maps (..., h, w) without the cells of the padding, fp32 on the CPU.

    Args:
        maps: of one level.
        size: width and height of the image, in pixels of the network's input.
        stride: pixels per cell.
    """
    columns, rows = (-int(-side // stride) for side in size)
    return maps[..., :rows, :columns].float().cpu()
