"""Extract the feature maps compared by cross-resolution distillation, and their distances."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.modeling import GeneralizedRCNN, RetinaNet
from detectron2.structures import Boxes
from torch import Tensor

from efpn_d2.data.student_view import halve_instances
from efpn_d2.inspection.image_samples import build_test_mapper, check_image, cut_padding
from efpn_d2.inspection.pyramids import PyramidSource, load_pyramid
from efpn_d2.layers import nearest_up2
from efpn_d2.losses import foreground_background_balanced_loss
from efpn_d2.modeling.meta_arch.views import make_views

logger = logging.getLogger(__name__)

# Strides of the distilled levels, in pixels of the student's image.
STRIDES = {"p2_prime": 2, "p3_prime": 4}


class Distance(NamedTuple):
    """Mean absolute difference of two feature maps."""

    overall: float  # over all elements: L_glob [paper Eq. 6]
    on_objects: float | None  # over the cells covered by boxes: L_pos [paper Eq. 7]; None: no box


class FeatureMaps(NamedTuple):
    """Feature maps (C, h, w) of one image without padding; positions in pixels of the student."""

    name: str  # path of the image file
    image: np.ndarray  # (H, W, 3) uint8 RGB, as loaded
    size: tuple[float, float]  # width and height of the image, in pixels of the student
    file_size: tuple[int, int]  # width and height of the file
    boxes: Tensor  # (G, 4) XYXY
    stride: int  # pixels per cell
    target: Tensor  # features of the image at twice the size
    extended: dict[str, Tensor]  # extended features by the label of their model
    stock: Tensor  # the target's level for the 1x image, upsampled (nearest)


def measure_distance(features: Tensor, maps: FeatureMaps) -> Distance:
    """Compute the distance of features (C, h, w) to the target as in training, without padding."""
    boxes = Boxes(maps.boxes)
    terms = foreground_background_balanced_loss(
        features[None], maps.target[None], [boxes], maps.stride
    )
    on_objects = terms["positive"].item() if len(boxes) else None
    return Distance(terms["global"].item(), on_objects)


class FeatureMapExtractor:
    """Run teacher and students on one image at a time.

    The two views of the image are made as in training, at test scale. The scale and
    ``DISTILL.VIEW`` are those of the first model, whose teacher gives the target.
    """

    def __init__(
        self,
        sources: Sequence[PyramidSource],
        *,
        level: str = "p2_prime",
        teacher_weights: str = "",
        opts: Sequence[str] = (),
    ) -> None:
        """
        Args:
            sources: one or more pyramids with different labels.
            level: ``p2_prime`` or ``p3_prime``.
            teacher_weights: a checkpoint for the first config; empty: the first config's
                ``DISTILL.TEACHER_WEIGHTS``, or if that is empty the first model itself.
            opts: pairs of key and value that override every config.

        Raises:
            ValueError: if the level is unknown, there is no model, labels are equal, or see
                :func:`load_pyramid`.
            FileNotFoundError: see :func:`load_pyramid`.
        """
        labels = [source.label for source in sources]
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(
                f"The labels of the models are {labels}: give one or more different labels."
            )
        if level not in STRIDES:
            raise ValueError(f"The level is '{level}': use one of {', '.join(STRIDES)}.")
        self._level = level
        loaded = {source.label: load_pyramid(source, opts) for source in sources}
        self.cfg: CfgNode = next(iter(loaded.values()))[0]
        self._students = {label: model for label, (_, model) in loaded.items()}
        self._teacher = next(iter(self._students.values()))
        teacher_weights = teacher_weights or self.cfg.DISTILL.TEACHER_WEIGHTS
        if teacher_weights:
            source = sources[0]._replace(weights=teacher_weights)
            _, self._teacher = load_pyramid(source, opts, stock_only=True)
        # The image is loaded at twice the scale if it is the teacher's view, as in the training
        # mapper.
        self._scale = 2 if self.cfg.DISTILL.VIEW == "downsample" else 1
        self._mapper = build_test_mapper(self.cfg, self._scale)

    @torch.no_grad()
    def __call__(self, record: dict[str, Any]) -> FeatureMaps:
        """Extract the feature maps of one image.

        Args:
            record: ``file_name`` and, optionally, ``annotations`` of an image as in Detectron2's
                datasets. Crowds are skipped, as in training.

        Raises:
            ValueError: if the image cannot be read or does not have the recorded size, or the
                models' feature maps do not match.
        """
        file_size = check_image(record, self.cfg.INPUT.FORMAT)
        sample = self._mapper(record)
        pixels = sample["image"]
        stride = STRIDES[self._level]
        size = (pixels.shape[2] / self._scale, pixels.shape[1] / self._scale)
        cut = partial(cut_padding, size=size, stride=stride)

        teacher_view = self._views(self._teacher, sample)[1]
        target = self._stock_map(self._teacher, teacher_view)
        extended, stock = {}, {}
        for label, model in self._students.items():
            student_view = self._views(model, sample)[0]
            extended[label] = model.backbone.student_maps(student_view)[self._level]
            stock[label] = nearest_up2(self._stock_map(model, student_view))
        self._check_alike(target, extended, stock)
        return FeatureMaps(
            name=Path(record["file_name"]).name,
            image=convert_image_to_rgb(pixels.permute(1, 2, 0), self.cfg.INPUT.FORMAT),
            size=size,
            file_size=file_size,
            boxes=self._boxes(sample),
            stride=stride,
            target=cut(target[0]),
            extended={label: cut(x[0]) for label, x in extended.items()},
            stock=cut(next(iter(stock.values()))[0]),
        )

    def _views(
        self, model: GeneralizedRCNN | RetinaNet, sample: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Return the student's and the teacher's image, (1, 3, H, W) and (1, 3, 2H, 2W), padded."""
        images = model.preprocess_image([sample])
        divisibility = model.backbone.size_divisibility
        student, teacher = make_views(images, self.cfg.DISTILL.VIEW, divisibility)
        return student.tensor, teacher

    def _stock_map(self, model: GeneralizedRCNN | RetinaNet, view: Tensor) -> Tensor:
        return model.backbone.teacher_maps(view)[self._level]

    def _boxes(self, sample: dict[str, Any]) -> Tensor:
        if "instances" not in sample:
            return torch.zeros(0, 4)
        instances = sample["instances"]
        return (halve_instances(instances) if self._scale == 2 else instances).gt_boxes.tensor

    def _check_alike(
        self, target: Tensor, extended: dict[str, Tensor], stock: dict[str, Tensor]
    ) -> None:
        first = next(iter(stock))
        for label, features in extended.items():
            if features.shape != target.shape:
                raise ValueError(
                    f"The map of model '{label}' has shape {tuple(features.shape)}, the target "
                    f"{tuple(target.shape)}: compare models with the same pyramid."
                )
            if not torch.allclose(stock[label], stock[first], rtol=1e-3, atol=1e-3):
                logger.warning(
                    f"The stock pyramid of model '{label}' is not that of '{first}', whose "
                    "teacher gives the target: the distance includes that between the two "
                    "pyramids."
                )
