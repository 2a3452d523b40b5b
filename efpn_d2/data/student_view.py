"""The student's view of data that is loaded at twice its scale, for distillation.

Halving is exact: a student pixel is the mean of the 2x2 teacher pixels that it covers, so a point
at (x, y) of the teacher's image is at (x / 2, y / 2) of the student's, and boxes are halved without
rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks
from torch import Tensor
from torch.nn import functional as F

Sample = dict[str, Any]


class TeacherViewMapper:
    """Add ``teacher_image`` to the samples of a mapper that loads at twice the student's scale."""

    def __init__(self, mapper: Callable[[Sample], Sample]) -> None:
        """
        Args:
            mapper: maps a record to a sample at twice the student's scale.
        """
        self.mapper = mapper

    def __call__(self, dataset_dict: Sample) -> Sample:
        """Map a record to a sample with the student's and the teacher's images.

        Args:
            dataset_dict: a record, as for the mapper.

        Returns:
            The mapper's sample with its ``image`` as ``teacher_image`` (C, 2H, 2W), and ``image``
            (C, H, W) and ``instances`` at the student's scale. An odd side is rounded up.
        """
        sample = self.mapper(dataset_dict)
        teacher_image = sample["image"]
        sample = {**sample, "image": halve_image(teacher_image), "teacher_image": teacher_image}
        if "instances" in sample:
            sample["instances"] = halve_instances(sample["instances"])
        return sample


def halve_image(image: Tensor) -> Tensor:
    """Average 2x2 pixels of (C, H, W) in the image's data type; an odd side is rounded up."""
    mean = F.avg_pool2d(image[None].float(), 2, ceil_mode=True)[0]
    return mean if image.is_floating_point() else mean.round().to(image.dtype)


def halve_instances(instances: Instances) -> Instances:
    """Scale ground truth to half the size.

    Raises:
        TypeError: if a field has an unknown type.
    """
    height, width = instances.image_size
    out = Instances((-(-height // 2), -(-width // 2)))
    for name, value in instances.get_fields().items():
        out.set(name, _halve(name, value))
    return out


def _halve(name: str, value: object) -> object:
    if isinstance(value, Boxes):
        return Boxes(value.tensor / 2)
    if isinstance(value, PolygonMasks):
        return PolygonMasks([[part / 2 for part in polygons] for polygons in value.polygons])
    if isinstance(value, BitMasks):
        height, width = value.tensor.shape[-2:]
        masks = F.pad(value.tensor.float()[:, None], (0, width % 2, 0, height % 2))
        return BitMasks(F.avg_pool2d(masks, 2)[:, 0] >= 0.5)
    if isinstance(value, Keypoints):
        return Keypoints(value.tensor * value.tensor.new_tensor([0.5, 0.5, 1.0]))
    if isinstance(value, torch.Tensor):
        return value
    raise TypeError(
        f"Ground truth field '{name}' is a {type(value).__name__}, which cannot be scaled to the "
        "student's view: remove it in the dataset mapper."
    )
