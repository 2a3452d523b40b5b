"""Images as Detectron2 reads them, but for those whose values it would change."""

import os

import numpy as np
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.utils.file_io import PathManager
from PIL import Image


def mode_problem(mode: str) -> str:
    """What Detectron2 would do to pixels of a mode, and what to do; empty if it reads them right.

    Args:
        mode: Pillow's name of the pixel format.
    """
    if not mode.startswith("I;16") and mode not in ("I", "F"):
        return ""
    return (
        f"its pixels are of Pillow's mode {mode}, and Detectron2 would cut all values above 255; "
        "convert it to 8 bits"
    )


def check_pixels(path: str | os.PathLike[str]) -> None:
    """Check by its header that an image file has 8 bits per channel.

    Detectron2 reads files of 16 bits, of integers and of floats, too, but cuts their values.

    Args:
        path: of the file.

    Raises:
        ValueError: it has other pixels.
        OSError: it cannot be read as an image.
    """
    with PathManager.open(os.fspath(path), "rb") as file, Image.open(file) as image:
        problem = mode_problem(image.mode)
    if problem:
        raise ValueError(f"'{os.fspath(path)}' cannot be used: {problem}.")


def read_image(path: str | os.PathLike[str], image_format: str) -> np.ndarray:
    """Read an image by ``detectron2.data.detection_utils.read_image``.

    Args:
        path: of the file.
        image_format: see there.

    Returns:
        (H, W, C), turned as its EXIF tag says.

    Raises:
        ValueError, OSError: see :func:`check_pixels`. On a damaged file Pillow raises others, too.
    """
    check_pixels(path)
    return detection_utils.read_image(os.fspath(path), format=image_format)


def vanishes(width: int, height: int, shortest: int, longest: int) -> bool:
    """Whether an image is so long and narrow that Detectron2's resizing leaves no pixel of it.

    Args:
        width, height: of the image.
        shortest: what its shorter side is brought to, as ``INPUT.MIN_SIZE_TEST``; 0: no resizing.
        longest: what its longer side has at most, as ``INPUT.MAX_SIZE_TEST``.
    """
    if shortest == 0:
        return False
    return min(T.ResizeShortestEdge.get_output_shape(height, width, shortest, longest)) < 1
