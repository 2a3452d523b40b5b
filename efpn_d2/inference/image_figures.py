"""What figures of single images have in common: their files, and what is said of an image."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efpn_d2.inference.files import plan_outputs
from efpn_d2.visualization.feature_figure import FeatureLine
from efpn_d2.visualization.figures import check_figure_path, write_figure

if TYPE_CHECKING:  # imported where it is needed: importing this module stays cheap
    from matplotlib.figure import Figure


Crop = tuple[float, float, float, float]  # XYXY


def write_image_figures(
    records: Sequence[dict[str, Any]],
    output: Path,
    make_lines: Callable[[dict[str, Any]], list[FeatureLine]],
    draw: Callable[[Sequence[FeatureLine]], "Figure"],
) -> list[Path]:
    """Write figures of images.

    Args:
        records: of the images, with ``file_name``.
        output: a file for one figure of all images, or a folder for one PNG per image.
        make_lines: gives what an image contributes to a figure.
        draw: makes a figure of lines.

    Returns:
        The files.

    Raises:
        ValueError: the output would replace an input, or cannot be a figure; nothing is done then.
    """
    images = [Path(record["file_name"]) for record in records]
    if output.suffix and not output.is_dir():
        check_figure_path(output)
        if output.resolve() in [path.resolve() for path in images]:
            raise ValueError(f"'{output}' is an input and would be overwritten: give another name.")
        outputs, groups = [output], [records]
    else:
        outputs, groups = plan_outputs(images, output, ".png"), [[record] for record in records]
    for path, group in zip(outputs, groups, strict=True):
        lines = [line for record in group for line in make_lines(record)]
        write_figure(path, partial(draw, lines))
    return outputs


def image_caption(name: str, boxes: int) -> str:
    """The name of an image and how many boxes it has, if any."""
    return name + (f", {boxes} box{'es' if boxes > 1 else ''}" if boxes else "")


def crop_window(
    crop: Crop | None, name: str, file_size: tuple[int, int], size: tuple[float, float]
) -> Crop | None:
    """A crop in pixels of the network's input; None: all.

    Args:
        crop: in pixels of the file.
        name: of the file, for the message.
        file_size: width and height of the file.
        size: width and height of the image in pixels of the network's input.

    Raises:
        ValueError: it is not within the image.
    """
    if crop is None:
        return None
    width, height = file_size
    x0, y0, x1, y1 = crop
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(
            f"The crop {','.join(f'{v:g}' for v in crop)} is not within the image '{name}' of "
            f"{width} x {height} pixels: give x0,y0,x1,y1 with x0 < x1 and y0 < y1."
        )
    scale_x, scale_y = size[0] / width, size[1] / height
    return x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y
