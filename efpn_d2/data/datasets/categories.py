"""What a COCO JSON holds: its classes, compared with a model's, and gaps in its annotations."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

# Beside the box and the ids, without which not even training works.
_EVALUATED_KEYS = ("area", "iscrowd")


def category_names(json_file: str) -> tuple[str, ...]:
    """The classes of a COCO JSON in the order of their ids, which is the order Detectron2 uses.

    Raises:
        ValueError: the file is no COCO JSON.
    """
    return _summary(json_file).category_names


def incomplete_annotations(json_file: str) -> dict[str, int]:
    """How many annotations lack a key that COCO's evaluation reads; keys that none lacks are out.

    Raises:
        ValueError: the file is no COCO JSON.
    """
    return dict(_summary(json_file).missing)


class _Summary(NamedTuple):
    category_names: tuple[str, ...]
    missing: tuple[tuple[str, int], ...]  # key, number of annotations without it


def _summary(json_file: str) -> _Summary:
    path = PathManager.get_local_path(json_file)
    return _read_summary(path, os.stat(path).st_mtime_ns)


@lru_cache(maxsize=32)
def _read_summary(path: str, _modified: int) -> _Summary:
    try:
        with open(path) as file:
            content = json.load(file)
        categories = sorted(content["categories"], key=lambda entry: entry["id"])
        annotations = content.get("annotations", ())
        missing = Counter(key for a in annotations for key in _EVALUATED_KEYS if key not in a)
        return _Summary(tuple(entry["name"] for entry in categories), tuple(missing.items()))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no COCO JSON: it must be an object whose list 'categories' has an id and "
            f"a name for each class ({type(error).__name__}: {error})."
        ) from error


def num_classes_key(cfg: CfgNode) -> str | None:
    """The config key that holds the model's number of classes; None for class-agnostic models."""
    if "RetinaNet" in cfg.MODEL.META_ARCHITECTURE:
        return "MODEL.RETINANET.NUM_CLASSES"
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
        return None
    return "MODEL.ROI_HEADS.NUM_CLASSES"


def check_num_classes(cfg: CfgNode, name: str) -> None:
    """Check the model's number of classes against a registered data set.

    Only data sets with a COCO JSON on disk are looked at: for others the answer is either costly or
    not known.

    Raises:
        ValueError: the numbers differ.
    """
    key = num_classes_key(cfg)
    metadata = MetadataCatalog.get(name)
    json_file = metadata.get("json_file")
    if key is None or json_file is None or not PathManager.exists(json_file):
        return
    # Large sets that Detectron2 knows by name need not be read.
    classes = metadata.get("thing_classes") or category_names(json_file)
    node = cfg
    for part in key.split("."):
        node = node[part]
    if node != len(classes):
        raise ValueError(
            f"Data set '{name}' has {len(classes)} classes, but {key} is {node}: "
            f"set {key} to {len(classes)}."
        )
