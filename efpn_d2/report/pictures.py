"""Images of a report as files that browsers show, with thumbnails."""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

_SHOWN_AS_THEY_ARE = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_MOST_PIXELS = 200_000_000  # limit of pixels of an image that is decoded


class Picture(NamedTuple):
    """Files of one image, relative to the folder of the report.

    Attributes:
        file: the image.
        thumb: its thumbnail; the image itself if that is small.
    """

    file: str
    thumb: str


def write_picture(
    source: Path, folder: Path, number: int, *, max_side: int = 4096, thumb_side: int = 360
) -> Picture:
    """Copy an image into a report, or convert it if browsers cannot show it.

    Images with a side above ``max_side`` are downscaled, and those with more than 8 bits per
    channel converted to 8 bits. An EXIF orientation is kept; browsers apply it as Detectron2 does.

    Args:
        source: path of the image.
        folder: folder of the report.
        number: used as file name.
        max_side: longest side in pixels.
        thumb_side: longest side of the thumbnail in pixels.

    Returns:
        The files.

    Raises:
        OSError: if the image cannot be read.
        ValueError: if the image cannot be decoded or is too large.
    """
    try:
        with Image.open(source) as image:
            if image.width * image.height > _MOST_PIXELS:
                size = f"{image.width} x {image.height} pixels"
                raise ValueError(f"{source} has {size}, too many to show: split it into tiles")
            return _write(image, source, folder, number, max_side, thumb_side)
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source}: {error}") from error


def _write(
    image: Image.Image, source: Path, folder: Path, number: int, max_side: int, thumb_side: int
) -> Picture:
    for name in ("images", "thumbs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    suffix = _SHOWN_AS_THEY_ARE.get(image.format or "")
    plain = suffix is not None and image.mode in ("L", "RGB", "RGBA", "P", "1")
    small = max(image.size) <= thumb_side
    if plain and max(image.size) <= max_side:
        file = f"images/{number}{suffix}"
        image.load()  # raises for a damaged file, before it reaches the browser
        shutil.copyfile(source, folder / file)
    else:
        lossless = max(image.size) <= max_side
        file = f"images/{number}{'.png' if lossless else '.jpg'}"
        image = _eight_bits(ImageOps.exif_transpose(image))
        image.thumbnail((max_side, max_side))
        image.save(folder / file, quality=92)
    if small:
        return Picture(file, file)
    thumb = f"thumbs/{number}.jpg"
    image = _eight_bits(ImageOps.exif_transpose(image))
    image.thumbnail((thumb_side, thumb_side), reducing_gap=2.0)
    image.save(folder / thumb, quality=82)
    return Picture(file, thumb)


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        values -= values.min()
        return Image.fromarray((values * (255 / max(values.max(), 1e-9))).astype(np.uint8))
    return image if image.mode in ("RGB", "L") else image.convert("RGB")
