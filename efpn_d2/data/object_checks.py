"""Objects without what a detector is trained on, found before the training and not in it."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode


def check_objects(cfg: CfgNode, records: Sequence[dict[str, Any]]) -> None:
    """Check that all objects have the masks and the keypoints that are trained on.

    Detectron2 takes both from an image as far as its first object has them, so that a training
    would end at the first image where that fails, whenever it comes.

    Args:
        cfg: a config.
        records: of Detectron2's format; crowds, which are not trained on, do not count.

    Raises:
        ValueError: some have none, or have them in a form that the config has no place for, or that
            needs a package which is not installed; the message counts them and says what to do.
    """
    if cfg.MODEL.MASK_ON:
        _refuse(
            records,
            lambda a: not _has_mask(a),
            "MODEL.MASK_ON is True, but {number} have no mask{first}: add their 'segmentation', "
            "leave them out, or set MODEL.MASK_ON to False.",
        )
        if cfg.INPUT.MASK_FORMAT == "polygon":
            _refuse(
                records,
                lambda a: not isinstance(a["segmentation"], list),
                "INPUT.MASK_FORMAT is polygon, but {number} have no polygons as their mask{first}, "
                "but a run-length encoding or pixels: set INPUT.MASK_FORMAT to bitmask.",
            )
        if cfg.INPUT.CROP.ENABLED and not importlib.util.find_spec("shapely"):
            _refuse(
                records,
                lambda a: isinstance(a["segmentation"], list),
                "INPUT.CROP.ENABLED cuts masks of polygons, which {number} have{first}, by the "
                "package shapely: pip install shapely, or set INPUT.CROP.ENABLED to False.",
            )
    if cfg.MODEL.KEYPOINT_ON:
        length = 3 * cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
        _refuse(
            records,
            lambda a: len(a.get("keypoints", ())) != length,
            f"MODEL.KEYPOINT_ON is True, but {{number}} have not {length // 3} keypoints "
            f"(MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS), which are {length} numbers in "
            "'keypoints'{first}: add them, leave these objects out, or set MODEL.KEYPOINT_ON to "
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
