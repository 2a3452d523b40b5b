"""Keypoints of a COCO JSON: their names, and the pairs that are swapped by a horizontal flip."""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

_SIDES = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"))
# Number of keypoint sigmas that COCO's evaluation has by default.
_COCO_KEYPOINTS = 17


def common_keypoints(categories: Sequence[Mapping[str, Any]]) -> tuple[str, ...] | None:
    """Return the keypoint names that the categories share.

    Args:
        categories: categories of a COCO JSON; those without ``keypoints`` are skipped.

    Returns:
        The names; empty if no category has any; None if two categories differ, which Detectron2
        does not support.
    """
    named = [c["keypoints"] for c in categories if isinstance(c.get("keypoints"), list)]
    lists = {tuple(map(str, names)) for names in named if names}
    if len(lists) > 1:
        return None
    return lists.pop() if lists else ()


def keypoint_metadata(names: Sequence[str] | None) -> dict[str, Any]:
    """Return Detectron2's metadata for keypoints.

    A keypoint whose name contains "left" and the one with "right" in its place, such as
    ``left_eye`` and ``right_eye``, are swapped by a horizontal flip. All others are unchanged.

    Args:
        names: keypoint names in order.

    Returns:
        ``keypoint_names`` and ``keypoint_flip_map``; empty without names.
    """
    if not names:
        return {}
    pairs = []
    for name in names:
        for left, right in _SIDES:
            other = name.replace(left, right)
            if other != name and other in names:
                pairs.append((name, other))
    return {"keypoint_names": tuple(names), "keypoint_flip_map": tuple(pairs)}


def check_keypoints(cfg: CfgNode, name: str, *, evaluated: bool) -> None:
    """Check that a keypoint detector matches a dataset, if ``MODEL.KEYPOINT_ON``.

    Args:
        cfg: a config.
        name: name of a registered dataset.
        evaluated: whether it is in ``DATASETS.TEST``.

    Raises:
        ValueError: if the dataset has no keypoint names, or the numbers of keypoints differ.
    """
    if not cfg.MODEL.KEYPOINT_ON:
        return
    metadata = MetadataCatalog.get(name)
    names = metadata.get("keypoint_names")
    if not names:
        raise ValueError(
            f"MODEL.KEYPOINT_ON is True, but dataset '{name}' has no keypoints that are the same "
            "in all classes that have some: list their names in 'keypoints' of these categories "
            f"of {metadata.get('json_file', 'its JSON')} (and prepare it again, if it is "
            "prepared), or set MODEL.KEYPOINT_ON to False."
        )
    number = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    if number != len(names):
        raise ValueError(
            f"Dataset '{name}' has {len(names)} keypoints, but "
            f"MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is {number}: set it to {len(names)}."
        )
    sigmas = len(cfg.TEST.KEYPOINT_OKS_SIGMAS) or _COCO_KEYPOINTS
    if evaluated and sigmas != len(names):
        raise ValueError(
            f"Dataset '{name}' has {len(names)} keypoints, but TEST.KEYPOINT_OKS_SIGMAS has "
            f"{len(cfg.TEST.KEYPOINT_OKS_SIGMAS)} numbers (none: COCO's {_COCO_KEYPOINTS}): give "
            "one for each keypoint, or set DATASETS.TEST to ()."
        )
