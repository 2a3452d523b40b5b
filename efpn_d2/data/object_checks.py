"""Check that objects have the annotations to train on, before the training starts."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode


def check_objects(cfg: CfgNode, records: Sequence[dict[str, Any]]) -> None:
    """Check that all objects have the masks and keypoints needed for training.

    Detectron2 assumes that all objects of an image have what its first object has, so a training
    would fail at the first image for which this is wrong.

    Args:
        cfg: a config.
        records: dataset dicts in Detectron2's format; crowds, which are not trained on, are
            skipped.

    Raises:
        ValueError: if some objects lack them, or have them in a form that the config does not
            support, or that needs a package which is not installed; the message counts these
            objects and says what to do.
    """
    if cfg.MODEL.MASK_ON:
        _refuse(
            records,
            lambda a: not _has_mask(a),
            "MODEL.MASK_ON is True, but {number} have no mask{first}: add their 'segmentation', "
            "remove them, or set MODEL.MASK_ON to False.",
        )
        if cfg.INPUT.MASK_FORMAT == "polygon":
            _refuse(
                records,
                lambda a: not isinstance(a["segmentation"], list),
                "INPUT.MASK_FORMAT is polygon, but {number} have a run-length encoding or "
                "pixels instead of polygons as their mask{first}: set INPUT.MASK_FORMAT to "
                "bitmask.",
            )
        if cfg.INPUT.CROP.ENABLED and not importlib.util.find_spec("shapely"):
            _refuse(
                records,
                lambda a: isinstance(a["segmentation"], list),
                "INPUT.CROP.ENABLED cuts polygon masks, which {number} have{first}, with the "
                "package shapely: pip install shapely, or set INPUT.CROP.ENABLED to False.",
            )
    if cfg.MODEL.KEYPOINT_ON:
        length = 3 * cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
        _refuse(
            records,
            lambda a: len(a.get("keypoints", ())) != length,
            f"MODEL.KEYPOINT_ON is True, but {{number}} do not have {length // 3} keypoints "
            f"(MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS), which are {length} numbers in "
            f"'keypoints'{{first}}: add them, remove these objects, or set MODEL.KEYPOINT_ON to "
            "False.",
        )


def _has_mask(annotation: dict[str, Any]) -> bool:
    mask = annotation.get("segmentation")
    return mask is not None and len(mask) > 0


def _refuse(
    records: Sequence[dict[str, Any]], is_wrong: Callable[[dict[str, Any]], bool], text: str
) -> None:
    total, wrong, first = 0, 0, ""
    for file_name, annotation in _objects(records):
        total += 1
        if is_wrong(annotation):
            wrong += 1
            first = first or f" (the first is in '{file_name}')"
    if wrong:
        number = f"{wrong} of the {total} objects of DATASETS.TRAIN"
        raise ValueError(text.format(number=number, first=first))


def _objects(records: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for record in records:
        for annotation in record.get("annotations", ()):
            if not annotation.get("iscrowd", 0):
                yield record.get("file_name", ""), annotation
