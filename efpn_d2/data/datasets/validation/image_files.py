"""What an image file is, read from its header wherever that is enough."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from efpn_d2.data.image_reading import mode_problem

_EXIF_ORIENTATION = 0x0112
# The end of a complete file; others are decoded to see whether they are whole.
_LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class ImageFacts(NamedTuple):
    """An image as Detectron2 will see it, or why it cannot be used.

    Attributes:
        width, height: in pixels, after EXIF rotation; 0 if the file cannot be read.
        mode: Pillow's name of the pixel format.
        orientation: the EXIF orientation, 1 to 8; 1 is none.
        problem: a kind of problem that makes the image unusable; empty if there is none.
        message: what the problem is and what to do.
    """

    width: int = 0
    height: int = 0
    mode: str = ""
    orientation: int = 1
    problem: str = ""
    message: str = ""

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height before EXIF rotation."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


def inspect_images(
    paths: list[Path],
    *,
    decode: bool = False,
    quick: bool = False,
    workers: int = 4,
    progress: str = "",
) -> list[ImageFacts]:
    """Inspect image files in threads.

    Args:
        paths: of the files.
        decode: decode all images, which finds damage inside of a file, but takes far longer. Else
            that is done only for files that do not end as their format says.
        quick: not even for files whose format has no certain end.
        workers: number of threads.
        progress: label of a bar with the time left; empty: no bar.

    Returns:
        Facts in the order of ``paths``.
    """
    from PIL import Image
    from tqdm import tqdm

    limit = Image.MAX_IMAGE_PIXELS
    max_pixels = None if limit is None else 2 * limit
    inspect = partial(_inspect, decode=decode, quick=quick, max_pixels=max_pixels)
    with _no_pixel_limit(), ThreadPoolExecutor(max(workers, 1)) as pool:
        results: Iterable[ImageFacts] = pool.map(inspect, paths)
        return list(
            tqdm(results, progress, len(paths), unit="image", disable=not progress, mininterval=1)
        )


@contextlib.contextmanager
def _no_pixel_limit() -> Iterator[None]:
    """Let Pillow read the headers of images that it would refuse to open."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _inspect(path: Path, decode: bool, quick: bool, max_pixels: int | None) -> ImageFacts:
    from PIL import Image

    if not path.is_file():
        return ImageFacts(problem="missing_image", message="there is no such file")
    try:
        with Image.open(path) as image:
            if decode and image.size[0] * image.size[1] <= (max_pixels or math.inf):
                image.load()
            # Not image.getexif(), which decodes a whole PNG to look behind its pixels.
            orientation = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
            orientation = orientation if orientation in range(1, 9) else 1
            width, height = image.size if orientation < 5 else image.size[::-1]
            facts = ImageFacts(width, height, image.mode, orientation)
            problem = _pixel_problem(facts, max_pixels)
            has_an_end = image.format in _LAST_BYTES or not quick
            if not problem[0] and has_an_end and not _ends_as_it_should(path, image.format):
                image.load()
    except Exception as error:  # decoders raise all kinds of errors on damaged files
        message = f"it cannot be read ({type(error).__name__}: {error}); get the file again"
        return ImageFacts(problem="unreadable_image", message=message)
    return facts._replace(problem=problem[0], message=problem[1])


def _pixel_problem(facts: ImageFacts, max_pixels: int | None) -> tuple[str, str]:
    problem = mode_problem(facts.mode)
    if problem:
        return "image_16_bit", problem
    if max_pixels is not None and facts.width * facts.height > max_pixels:
        return (
            "image_too_large",
            f"{facts.width} x {facts.height} pixels are more than the {max_pixels} that Pillow, "
            "which Detectron2 reads images with, opens; cut it into tiles",
        )
    return "", ""


def _ends_as_it_should(path: Path, image_format: str | None) -> bool:
    end = _LAST_BYTES.get(image_format or "")
    if end is None:
        return False
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 64, 0))
        return file.read().rstrip(b"\0").endswith(end)


def rotate_points(
    points: list[tuple[float, float]], orientation: int, stored_size: tuple[int, int]
) -> list[tuple[float, float]]:
    """Move points of the stored image to where EXIF rotation shows them.

    Args:
        points: (x, y) in pixels of the stored image, whose corner is (0, 0).
        orientation: EXIF orientation, 1 to 8.
        stored_size: width and height of the stored image.
    """
    width, height = stored_size
    return [
        {
            1: (x, y),
            2: (width - x, y),
            3: (width - x, height - y),
            4: (x, height - y),
            5: (y, x),
            6: (height - y, x),
            7: (height - y, width - x),
            8: (y, width - x),
        }[orientation]
        for x, y in points
    ]
