"""Dataset mappers for training: Detectron2's mapper with the options of ``cfg.DATA``."""

import copy
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper

from efpn_d2.data.augmentation import (
    CopyPasteMapper,
    SmallObjectCopyPaste,
    color_jitter,
    with_scale_jitter,
)
from efpn_d2.data.datasets.loading import float_coordinates
from efpn_d2.data.image_reading import check_pixels
from efpn_d2.data.student_view import TeacherViewMapper

Mapper = Callable[[dict[str, Any]], dict[str, Any]]


class DetectionMapper(DatasetMapper):
    """:class:`DatasetMapper` that scales integer boxes correctly and refuses images above 8 bits.

    Boxes and polygons of floats are bitwise equal to those of the base class.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map a dataset dict to model input, as in the base class.

        Raises:
            ValueError: if pixel values would be clipped; see :func:`check_pixels`.
        """
        check_pixels(dataset_dict["file_name"])
        if "annotations" in dataset_dict:
            annotations = [float_coordinates(a) for a in dataset_dict["annotations"]]
            dataset_dict = {**dataset_dict, "annotations": annotations}
        return super().__call__(dataset_dict)

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: Any, image_shape: tuple[int, int]
    ) -> None:
        """Transform annotations; skip boxes of masks if there is no object."""
        if all(a.get("iscrowd", 0) for a in dataset_dict["annotations"]):
            without = copy.copy(self)
            without.recompute_boxes = False
            super(DetectionMapper, without)._transform_annotations(
                dataset_dict, transforms, image_shape
            )
            return
        super()._transform_annotations(dataset_dict, transforms, image_shape)


def build_train_mapper(cfg: CfgNode) -> Mapper:
    """Build Detectron2's mapper with the augmentations that ``cfg.DATA`` enables.

    Raises:
        ValueError: if an option of ``cfg.DATA`` is out of range.
    """
    return _build(with_scale_jitter(cfg), cfg.DATA.COLOR_JITTER, "DATA.COLOR_JITTER")


def build_distillation_mapper(cfg: CfgNode) -> Mapper:
    """Build the training mapper; its samples also have the teacher's view.

    With ``DISTILL.VIEW`` ``downsample``, images are loaded at twice the lengths of ``INPUT``, which
    are the student's: see :class:`TeacherViewMapper`. With ``upsample`` the model computes the
    teacher's view from the student's.

    Raises:
        ValueError: if an option of ``cfg.DATA`` is out of range, or color jitter is set twice.
    """
    jitters = {f"{node}.COLOR_JITTER": cfg[node].COLOR_JITTER for node in ("DISTILL", "DATA")}
    if all(jitters.values()):
        raise ValueError("DISTILL.COLOR_JITTER and DATA.COLOR_JITTER are both set: use one.")
    key = "DATA.COLOR_JITTER" if jitters["DATA.COLOR_JITTER"] else "DISTILL.COLOR_JITTER"
    scaled = with_scale_jitter(cfg)
    if cfg.DISTILL.VIEW == "downsample":
        return TeacherViewMapper(_build(_at_twice_the_scale(scaled), jitters[key], key))
    return _build(scaled, jitters[key], key)


def _build(cfg: CfgNode, color_strength: float, color_key: str) -> Mapper:
    options = DatasetMapper.from_config(cfg, is_train=True)
    options["augmentations"] = [*options["augmentations"], *color_jitter(color_strength, color_key)]
    mapper = DetectionMapper(**options)
    copy_paste = SmallObjectCopyPaste.from_config(cfg)
    return mapper if copy_paste is None else CopyPasteMapper(mapper, copy_paste)


def _at_twice_the_scale(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TRAIN = tuple(2 * size for size in cfg.INPUT.MIN_SIZE_TRAIN)
    cfg.INPUT.MAX_SIZE_TRAIN = 2 * cfg.INPUT.MAX_SIZE_TRAIN
    if cfg.INPUT.CROP.ENABLED and cfg.INPUT.CROP.TYPE.startswith("absolute"):
        cfg.INPUT.CROP.SIZE = [2 * size for size in cfg.INPUT.CROP.SIZE]
    return cfg
