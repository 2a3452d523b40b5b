"""Read images with Detectron2, and refuse those whose values it would change."""

import os

import numpy as np
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.utils.file_io import PathManager
from PIL import Image


def mode_problem(mode: str) -> str:
    """Describe how Detectron2 would change pixels of a mode; empty if it reads them correctly.

    Args:
        mode: Pillow's name of the pixel format.
    """
    if not mode.startswith("I;16") and mode not in ("I", "F"):
        return ""
    return (
        f"its pixels have Pillow's mode {mode}, and Detectron2 would clip all values above 255; "
        "convert it to 8 bits"
    )


def check_pixels(path: str | os.PathLike[str]) -> None:
    """Check the header of an image file for 8 bits per channel.

    Detectron2 also reads files of 16 bits, integers and floats, but clips their values.

    Raises:
        ValueError: if the image has other pixels.
        OSError: if the file cannot be read as an image.
    """
    with PathManager.open(os.fspath(path), "rb") as file, Image.open(file) as image:
        problem = mode_problem(image.mode)
    if problem:
        raise ValueError(f"'{os.fspath(path)}' cannot be used: {problem}.")


def read_image(path: str | os.PathLike[str], image_format: str) -> np.ndarray:
    """Read an image with ``detectron2.data.detection_utils.read_image``.

    Args:
        path: path of the file.
        image_format: format as in Detectron2's function.

    Returns:
        Array (H, W, C), with the EXIF orientation applied.

    Raises:
        ValueError: see :func:`check_pixels`; Pillow may raise other errors on damaged files.
        OSError: see :func:`check_pixels`.
    """
    check_pixels(path)
    return detection_utils.read_image(os.fspath(path), format=image_format)


def vanishes(width: int, height: int, shortest: int, longest: int) -> bool:
    """Check whether an image is so narrow that no pixel is left after Detectron2's resizing.

    Args:
        width: width of the image.
        height: height of the image.
        shortest: target of the shorter side, as in ``INPUT.MIN_SIZE_TEST``; 0: no resizing.
        longest: maximum of the longer side, as in ``INPUT.MAX_SIZE_TEST``.
    """
    if shortest == 0:
        return False
    return min(T.ResizeShortestEdge.get_output_shape(height, width, shortest, longest)) < 1
