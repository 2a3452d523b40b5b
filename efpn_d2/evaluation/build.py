"""The evaluator of a data set, chosen by its metadata."""

import logging
import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    DatasetEvaluator,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
)

from .coco_evaluator import SizeBinnedCOCOEvaluator

logger = logging.getLogger(__name__)

_BY_DATASET_NAME = {
    "pascal_voc": PascalVOCDetectionEvaluator,
    "cityscapes_instance": CityscapesInstanceEvaluator,
    "cityscapes_sem_seg": CityscapesSemSegEvaluator,
}


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None
) -> DatasetEvaluator:
    """The evaluator that the ``evaluator_type`` in a data set's metadata asks for.

    Args:
        cfg: a config; ``EVALUATION.SIZE_BINS`` and ``TEST.DETECTIONS_PER_IMAGE`` apply to "coco".
        dataset_name: a registered data set.
        output_folder: where predictions are written; default ``<OUTPUT_DIR>/inference``.

    Raises:
        NotImplementedError: there is no evaluator of that type.
    """
    output_folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type == "coco":
        return SizeBinnedCOCOEvaluator(
            dataset_name,
            output_dir=output_folder,
            max_dets_per_image=_max_dets(cfg),
            kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
            size_bin_edges=cfg.EVALUATION.SIZE_BINS,
        )
    if evaluator_type == "lvis":
        return LVISEvaluator(
            dataset_name, output_dir=output_folder, max_dets_per_image=_max_dets(cfg)
        )
    if evaluator_type in _BY_DATASET_NAME:
        return _BY_DATASET_NAME[evaluator_type](dataset_name)
    message = (
        f"There is no evaluator for data set '{dataset_name}' (evaluator_type {evaluator_type}); "
        f"set MetadataCatalog.get('{dataset_name}').evaluator_type to one of coco, lvis, "
        f"{', '.join(_BY_DATASET_NAME)}, or override build_evaluator."
    )
    # Detectron2's test() catches the exception and goes on without its text.
    logger.error(message)
    raise NotImplementedError(message)


def _max_dets(cfg: CfgNode) -> int | None:
    """Detections per image that count, or None for the protocol's own limit."""
    limit = cfg.TEST.DETECTIONS_PER_IMAGE
    return limit if limit > 0 else None
