"""Extract the masks of the foreground-background separation module (E-FPN-BS) from images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.structures import Boxes
from torch import Tensor, nn

from efpn_d2.inspection.feature_figure import FeatureLine
from efpn_d2.inspection.image_figures import (
    Crop,
    crop_window,
    image_caption,
    write_image_figures,
)
from efpn_d2.inspection.image_samples import build_test_mapper, check_image, cut_padding
from efpn_d2.inspection.mask_figure import LevelMask, draw_mask_figure, mask_line
from efpn_d2.inspection.pyramids import PyramidSource, build_detector, load_weights
from efpn_d2.losses.foreground_mask import foreground_contrast
from efpn_d2.modeling.backbone import ForegroundBackgroundSeparationModule, find_fbsm


class ForegroundMasks(NamedTuple):
    """Masks of one image without padding; positions in pixels of the network's input."""

    name: str  # path of the image file
    image: np.ndarray  # (H, W, 3) uint8 RGB, as the network sees it
    file_size: tuple[int, int]  # width and height of the file
    boxes: Tensor  # (G, 4) XYXY
    masks: list[LevelMask]  # masks of the gated levels, in FBSM's order

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image, in pixels of the network's input."""
        return self.image.shape[1], self.image.shape[0]


class ForegroundMaskExtractor:
    """Run a pyramid on one image at a time, at test scale, and return FBSM's masks."""

    def __init__(self, source: PyramidSource, *, opts: Sequence[str] = ()) -> None:
        """
        Args:
            source: a detector with FBSM, with or without P'2.
            opts: pairs of key and value that override the config.

        Raises:
            ValueError: if there is no FBSM, or see :func:`build_detector` and :func:`load_weights`.
            FileNotFoundError: see :func:`build_detector`.
        """
        self.label = source.label
        self.cfg: CfgNode
        self.cfg, self._model = build_detector(source, opts)
        self._fbsm = _find_fbsm(self._model, source)
        load_weights(self._model, source)
        self._mapper = build_test_mapper(self.cfg)

    @torch.no_grad()
    def __call__(self, record: dict[str, Any]) -> ForegroundMasks:
        """Extract the masks of one image.

        Args:
            record: ``file_name`` and, optionally, ``annotations`` of an image as in Detectron2's
                datasets. Crowds are skipped, as in training.

        Raises:
            ValueError: see :func:`check_image`.
        """
        file_size = check_image(record, self.cfg.INPUT.FORMAT)
        sample = self._mapper(record)
        pixels = sample["image"]
        has_boxes = "instances" in sample
        boxes = sample["instances"].gt_boxes.tensor if has_boxes else torch.zeros(0, 4)
        images = self._model.preprocess_image([sample]).tensor
        _, logits = self._model.backbone.forward_with_masks(images)
        return ForegroundMasks(
            name=Path(record["file_name"]).name,
            image=convert_image_to_rgb(pixels.permute(1, 2, 0), self.cfg.INPUT.FORMAT),
            file_size=file_size,
            boxes=boxes,
            masks=self._level_masks(logits, boxes, (pixels.shape[2], pixels.shape[1])),
        )

    def _level_masks(
        self, logits: dict[str, Tensor], boxes: Tensor, size: tuple[int, int]
    ) -> list[LevelMask]:
        shapes = self._model.backbone.output_shape()
        strides = {name: shapes[name].stride for name in logits}
        logits = {name: cut_padding(x, size, strides[name]) for name, x in logits.items()}
        contrasts = foreground_contrast(logits, [Boxes(boxes)], strides)
        return [
            LevelMask(
                level=name,
                stride=strides[name],
                gain=self._fbsm.gamma[name].item(),
                values=x[0, 0].sigmoid().numpy(),
                contrast=contrasts.get(name),
            )
            for name, x in logits.items()
        ]


def draw_masks(
    extractor: ForegroundMaskExtractor,
    records: Sequence[dict[str, Any]],
    output: Path,
    crop: Crop | None = None,
) -> list[Path]:
    """Run a model on images and write the figures.

    Args:
        extractor: the model.
        records: see :class:`ForegroundMaskExtractor`.
        output: a file for one figure of all images, or a folder for one PNG per image.
        crop: the part to show, in pixels of the files; None: all.

    Returns:
        The files.

    Raises:
        ValueError: if an image cannot be read, the crop is outside of it, or the output would
            overwrite an input; nothing is written then.
    """
    for record in records:  # check all of them before the first figure is written
        file_size = check_image(record, extractor.cfg.INPUT.FORMAT)
        crop_window(crop, Path(record["file_name"]).name, file_size, file_size)
    return write_image_figures(
        records,
        output,
        make_lines=lambda record: [_line(extractor(record), crop)],
        draw=lambda lines: draw_mask_figure(lines, extractor.label),
    )


def _line(found: ForegroundMasks, crop: Crop | None) -> FeatureLine:
    return mask_line(
        found.masks,
        found.image,
        found.size,
        found.boxes.numpy(),
        caption=image_caption(found.name, len(found.boxes)),
        window=crop_window(crop, found.name, found.file_size, found.size),
    )


def _find_fbsm(model: nn.Module, source: PyramidSource) -> ForegroundBackgroundSeparationModule:
    fbsm = find_fbsm(getattr(model, "backbone", model))
    if fbsm is None:
        raise ValueError(
            f"The config '{source.config}' builds a pyramid without FBSM: use the config of a "
            "training with MODEL.EFPN_BS.FBSM_ENABLED True."
        )
    return fbsm
