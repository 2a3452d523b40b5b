"""Pixel-aligned inputs of student and teacher.

A student pixel is the mean of the 2x2 teacher pixels that it covers, so a point at (x, y) of the
teacher's image is at (x / 2, y / 2) of the student's.
"""

from detectron2.structures import ImageList
from torch import Tensor
from torch.nn import functional as F

VIEWS = ("downsample", "upsample")


def make_views(images: ImageList, view: str, size_divisibility: int) -> tuple[ImageList, Tensor]:
    """Make the student's and the teacher's views of the same images.

    Args:
        images: as loaded, padded or not.
        view: ``downsample``: ``images`` are the teacher's; ``upsample``: they are the student's.
        size_divisibility: size divisibility of the student's pyramid.

    Returns:
        The student's images, of shape (N, 3, H, W), and the teacher's (N, 3, 2H, 2W).
    """
    if view == "downsample":
        teacher_images = pad_to_multiple(images.tensor, 2 * size_divisibility)
        return halve_image_list(teacher_images, images.image_sizes), teacher_images
    return images, F.interpolate(images.tensor, scale_factor=2.0, mode="bilinear")


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad (N, C, H, W) with zeros on the right and below until H and W are multiples."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple))


def halve_image_list(images: Tensor, image_sizes: list[tuple[int, int]]) -> ImageList:
    """Average (N, C, 2H, 2W) over 2x2 pixels; odd image sizes are rounded up."""
    sizes = [(-(-height // 2), -(-width // 2)) for height, width in image_sizes]
    return ImageList(F.avg_pool2d(images, 2), sizes)
