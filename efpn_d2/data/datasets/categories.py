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

from .names import unique_names
from .record_checks import (
    ANNOTATION,
    CATEGORY,
    IMAGE,
    INTEGER,
    NAME,
    SIZE,
    Field,
    Kind,
    check_content,
    one_of,
)

# Beside the box and the ids, without which not even training works.
_EVALUATED_KEYS = ("area", "iscrowd")
# What Detectron2's loader reads.
_LOADED_IMAGE = (*IMAGE, Field("file_name", NAME), *SIZE)
_NOT_IGNORED = Kind(
    lambda value: "" if value == 0 else "be 0 for Detectron2, which knows only iscrowd",
    lambda values: set(map(type, values)) <= {int} and not any(values),
)


def category_names(json_file: str) -> tuple[str, ...]:
    """The classes of a COCO JSON in the order of their ids, which is the order Detectron2 uses.

    A name that several have is followed by the id, see :func:`.names.unique_names`.

    Raises:
        ValueError: the file is no COCO JSON, or has a record that Detectron2 could not load.
    """
    return _summary(json_file).category_names


def incomplete_annotations(json_file: str) -> dict[str, int]:
    """How many annotations lack a key that COCO's evaluation reads; keys that none lacks are out.

    Raises:
        ValueError: the file is no COCO JSON, or has a record that Detectron2 could not load.
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
    except ValueError as error:
        raise ValueError(
            f"{path} is no COCO JSON ({error}): get it again, it may be incomplete."
        ) from error
    check_content(content, path, categories=CATEGORY)
    category_ids = {entry["id"] for entry in content["categories"]}
    lists = {"images": _LOADED_IMAGE, "annotations": _loaded_annotation(category_ids)}
    check_content(content, path, **{part: lists[part] for part in lists if part in content})
    categories = sorted(content["categories"], key=lambda entry: entry["id"])
    annotations = content.get("annotations", ())
    for id, number in Counter(a["id"] for a in annotations).most_common(1):
        if number > 1:
            raise ValueError(
                f"{path} has {number} annotations with the id {id}, which Detectron2 refuses: give "
                "each an id of its own, or let tools/prepare_dataset.py do it."
            )
    missing = Counter(key for a in annotations for key in _EVALUATED_KEYS if key not in a)
    return _Summary(tuple(unique_names(categories)), tuple(missing.items()))


def _loaded_annotation(category_ids: set[int]) -> tuple[Field, ...]:
    """What Detectron2's loader reads of an annotation."""
    category = Field("category_id", one_of(category_ids, "the id of a category of the file"))
    return Field("id", INTEGER), *ANNOTATION, category, Field("ignore", _NOT_IGNORED, False)


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
