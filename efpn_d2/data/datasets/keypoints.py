"""Keypoints as a COCO JSON has them: their names, and which of them a mirrored image swaps."""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

_SIDES = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"))
# Of the standard deviations that COCO's evaluation has by default.
_COCO_KEYPOINTS = 17


def common_keypoints(categories: Sequence[Mapping[str, Any]]) -> tuple[str, ...] | None:
    """The names of keypoints that the categories have.

    Args:
        categories: of a COCO JSON; those without ``keypoints`` do not count.

    Returns:
        The names; none if no category has any; None if two have different ones, for which
        Detectron2 has no place.
    """
    named = [c["keypoints"] for c in categories if isinstance(c.get("keypoints"), list)]
    lists = {tuple(map(str, names)) for names in named if names}
    if len(lists) > 1:
        return None
    return lists.pop() if lists else ()


def keypoint_metadata(names: Sequence[str] | None) -> dict[str, Any]:
    """Detectron2's metadata for keypoints.

    A keypoint whose name says "left" and the one that says "right" instead, as in ``left_eye`` and
    ``right_eye``, are swapped when an image is mirrored. All others stay what they are.

    Args:
        names: of the keypoints, in their order.

    Returns:
        ``keypoint_names`` and ``keypoint_flip_map``; nothing without names.
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
    """Check that a detector of keypoints fits a data set, if ``MODEL.KEYPOINT_ON``.

    Args:
        cfg: a config.
        name: of a registered data set.
        evaluated: whether it is one of ``DATASETS.TEST``.

    Raises:
        ValueError: the data set has no names of keypoints, or numbers do not agree.
    """
    if not cfg.MODEL.KEYPOINT_ON:
        return
    metadata = MetadataCatalog.get(name)
    names = metadata.get("keypoint_names")
    if not names:
        raise ValueError(
            f"MODEL.KEYPOINT_ON is True, but data set '{name}' has no keypoints that are the same "
            "in all of its classes that have some: list their names in 'keypoints' of these "
            f"categories of {metadata.get('json_file', 'its JSON')} (and prepare it again, if it "
            "is prepared), or set MODEL.KEYPOINT_ON to False."
        )
    number = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    if number != len(names):
        raise ValueError(
            f"Data set '{name}' has {len(names)} keypoints, but "
            f"MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is {number}: set it to {len(names)}."
        )
    sigmas = len(cfg.TEST.KEYPOINT_OKS_SIGMAS) or _COCO_KEYPOINTS
    if evaluated and sigmas != len(names):
        raise ValueError(
            f"Data set '{name}' has {len(names)} keypoints, but TEST.KEYPOINT_OKS_SIGMAS has "
            f"{len(cfg.TEST.KEYPOINT_OKS_SIGMAS)} numbers (none: COCO's {_COCO_KEYPOINTS}): give "
            "one for each keypoint, or set DATASETS.TEST to ()."
        )
