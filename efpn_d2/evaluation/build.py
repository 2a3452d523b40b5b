"""Build the evaluator of a dataset from its metadata."""

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

from efpn_d2.config import require_node
from efpn_d2.evaluation.coco_evaluator import SizeBinnedCOCOEvaluator
from efpn_d2.evaluation.coco_protocols import COCO_PROTOCOLS
from efpn_d2.evaluation.protocol_evaluator import ProtocolEvaluator
from efpn_d2.evaluation.size_bins import size_bins
from efpn_d2.evaluation.tt100k_evaluator import TT100KEvaluator
from efpn_d2.evaluation.visdrone import MAX_DETECTIONS
from efpn_d2.evaluation.visdrone_evaluator import VisDroneEvaluator

logger = logging.getLogger(__name__)

_BY_DATASET_NAME = {
    "pascal_voc": PascalVOCDetectionEvaluator,
    "cityscapes_instance": CityscapesInstanceEvaluator,
    "cityscapes_sem_seg": CityscapesSemSegEvaluator,
}


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None
) -> DatasetEvaluator:
    """Build the evaluator that the ``evaluator_type`` in a dataset's metadata selects.

    For "coco", the rules are those of ``EVALUATION.PROTOCOL``, or else of the metadata's
    ``protocol``. Without either, or if the metadata's is "coco", they are COCO's with the
    detector's own limit of detections.

    Args:
        cfg: a config; for "coco", the node EVALUATION and ``TEST.DETECTIONS_PER_IMAGE`` apply.
        dataset_name: a registered dataset.
        output_folder: folder for predictions; default ``<OUTPUT_DIR>/inference``.

    Raises:
        NotImplementedError: if there is no evaluator of that type.
        ValueError: if the protocol is unknown, or a value of the node EVALUATION is invalid.
    """
    output_folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type == "coco":
        return _build_protocol_evaluator(cfg, dataset_name, output_folder)
    if evaluator_type == "lvis":
        return LVISEvaluator(
            dataset_name, output_dir=output_folder, max_dets_per_image=_max_dets(cfg)
        )
    if evaluator_type in _BY_DATASET_NAME:
        return _BY_DATASET_NAME[evaluator_type](dataset_name)
    message = (
        f"There is no evaluator for dataset '{dataset_name}' (evaluator_type {evaluator_type}); "
        f"set MetadataCatalog.get('{dataset_name}').evaluator_type to one of coco, lvis, "
        f"{', '.join(_BY_DATASET_NAME)}, or override build_evaluator."
    )
    # Detectron2's test() catches the exception and drops its text.
    logger.error(message)
    raise NotImplementedError(message)


def _build_protocol_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str
) -> ProtocolEvaluator:
    node = require_node(cfg, "EVALUATION")
    name = node.PROTOCOL or _protocol_of(dataset_name)
    common = {"output_dir": output_folder, "kpt_oks_sigmas": cfg.TEST.KEYPOINT_OKS_SIGMAS}
    if name in ("tt100k", "visdrone"):
        _warn_of_unused(node, name)
    if name == "tt100k":
        return TT100KEvaluator(
            dataset_name,
            classes=node.CLASSES,
            score_thresholds=node.SCORE_THRESHOLDS,
            **common,
        )
    if name == "visdrone":
        _warn_of_limit(cfg, name, MAX_DETECTIONS[-1])
        return VisDroneEvaluator(dataset_name, **common)
    if name and name not in COCO_PROTOCOLS:
        raise ValueError(
            f"The protocol '{name}' of dataset '{dataset_name}' is unknown: set "
            f"EVALUATION.PROTOCOL to one of {', '.join([*COCO_PROTOCOLS, 'tt100k', 'visdrone'])}."
        )
    bins = [size_bin.area_bin for size_bin in size_bins(node.SIZE_BINS)]
    limits = node.MAX_DETS or ([] if name else _limits_of_detector(cfg))
    protocol = COCO_PROTOCOLS[name or "coco"].changed(
        bins=bins, iou_thresholds=node.IOU_THRESHOLDS, max_dets=limits
    )
    _warn_of_limit(cfg, protocol.name, protocol.max_dets[-1])
    return SizeBinnedCOCOEvaluator(dataset_name, protocol=protocol, backend=node.BACKEND, **common)


def _protocol_of(dataset_name: str) -> str:
    """Return the metadata's protocol, empty if it is "coco".

    Metadata of any COCO file say "coco"; in the config it means the limit of 100 detections.
    """
    protocol = MetadataCatalog.get(dataset_name).get("protocol", "")
    return "" if protocol == "coco" else protocol


def _limits_of_detector(cfg: CfgNode) -> list[int]:
    """Return COCO's limits with the detector's own as the last; empty if it has none."""
    limit = _max_dets(cfg)
    return [*(n for n in (1, 10) if n < limit), limit] if limit else []


def _warn_of_unused(node: CfgNode, protocol: str) -> None:
    unused = [key for key in ("SIZE_BINS", "IOU_THRESHOLDS", "MAX_DETS") if node[key]]
    if unused:
        logger.warning(
            f"EVALUATION.{', '.join(unused)} is ignored by the protocol {protocol}, which has its "
            "own rules: leave it empty, or choose EVALUATION.PROTOCOL coco."
        )


def _warn_of_limit(cfg: CfgNode, protocol: str, needed: int) -> None:
    limit = _max_dets(cfg)
    if limit is not None and limit < needed:
        logger.warning(
            f"The detector returns at most {limit} detections per image "
            f"(TEST.DETECTIONS_PER_IMAGE), fewer than the {needed} of the protocol {protocol}: set "
            "both to the same number."
        )


def _max_dets(cfg: CfgNode) -> int | None:
    """Return the limit of detections per image, or None for the protocol's own."""
    limit = cfg.TEST.DETECTIONS_PER_IMAGE
    return limit if limit > 0 else None
