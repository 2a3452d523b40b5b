"""What a COCO JSON holds, read once: its classes, and what would fail in a training or after it."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from detectron2.utils.file_io import PathManager

from efpn_d2.data.datasets.box_format import suspect_boxes
from efpn_d2.data.datasets.keypoints import common_keypoints
from efpn_d2.data.datasets.names import unique_names
from efpn_d2.data.datasets.record_checks import (
    ANNOTATION,
    CATEGORY,
    FLAG,
    IMAGE,
    INTEGER,
    NAME,
    NUMBER,
    SIZE,
    Field,
    Kind,
    check_content,
    check_same_kind,
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


# What the evaluators read beside it; who lacks an area is counted.
_EVALUATED = (
    Field("area", NUMBER, False),
    Field("visdrone_category", INTEGER, False),
    Field("visdrone_score", NUMBER, False),
)


class ImageEntry(NamedTuple):
    """What a COCO JSON says of an image."""

    file_name: str
    width: float
    height: float
    #: Whether it has an object that is no crowd.
    has_object: bool


class JsonSummary(NamedTuple):
    """What is kept of a COCO JSON."""

    #: The classes in the order of their ids, each another.
    category_names: tuple[str, ...]
    #: Keys that COCO's evaluation reads, and how many annotations are without.
    missing: tuple[tuple[str, int], ...]
    #: The keypoints that all categories with keypoints have; None: they differ.
    keypoint_names: tuple[str, ...] | None
    images: tuple[ImageEntry, ...]
    #: By task of the evaluation, what it could not read; tasks for which all is there are out.
    unreadable: tuple[tuple[str, str], ...]
    #: What the boxes look like, if not like x, y, width and height; else empty.
    suspicion: str


def read_summary(json_file: str) -> JsonSummary:
    """Read a COCO JSON, unless it was read before and has not changed.

    Args:
        json_file: the file.

    Raises:
        ValueError: it is no COCO JSON, or has a record that Detectron2 could not load.
        OSError: it cannot be read.
    """
    path = PathManager.get_local_path(json_file)
    return _read_summary(path, os.stat(path).st_mtime_ns)


@lru_cache(maxsize=8)
def _read_summary(path: str, _modified: int) -> JsonSummary:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except ValueError as error:
        raise ValueError(
            f"{path} is no COCO JSON ({error}): get it again, it may be incomplete."
        ) from error
    _check_loaded(content, path)
    categories = sorted(content["categories"], key=lambda entry: entry["id"])
    annotations = content.get("annotations", ())
    missing = Counter(key for a in annotations for key in _EVALUATED_KEYS if key not in a)
    images = content.get("images", ())
    with_object = {a["image_id"] for a in annotations if not a.get("iscrowd", 0)}
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    suspicion = suspect_boxes(annotations, sizes)
    return JsonSummary(
        tuple(unique_names(categories)),
        tuple(missing.items()),
        common_keypoints(categories),
        tuple(
            ImageEntry(i["file_name"], i["width"], i["height"], i["id"] in with_object)
            for i in images
        ),
        tuple(_unreadable(annotations, path)),
        "" if suspicion is None else suspicion.message,
    )


def _unreadable(annotations: Sequence[dict[str, Any]], path: str) -> Iterator[tuple[str, str]]:
    """Tasks of COCO's evaluation, each with what it could not read."""
    try:
        check_content({"annotations": annotations}, path, annotations=_EVALUATED)
    except ValueError as error:
        yield "bbox", str(error)
    for task, keys in (("segm", ("segmentation",)), ("keypoints", ("keypoints", "num_keypoints"))):
        without = [
            number
            for number, a in enumerate(annotations)
            if not (a.get(keys[0]) and all(key in a for key in keys))
        ]
        if without:
            yield (
                task,
                f"{len(without)} of the {len(annotations)} annotations in {path} have no "
                f"{' or '.join(keys)}, "
                f"the first of them annotations[{without[0]}]",
            )


def _check_loaded(content: Any, path: str) -> None:
    """Check what Detectron2's loader reads."""
    check_content(content, path, categories=CATEGORY)
    category_ids = {entry["id"] for entry in content["categories"]}
    lists = {"images": _LOADED_IMAGE, "annotations": _loaded_annotation(category_ids)}
    check_content(content, path, **{part: lists[part] for part in lists if part in content})
    annotations = content.get("annotations", ())
    for id, number in Counter(a["id"] for a in annotations).most_common(1):
        if number > 1:
            raise ValueError(
                f"{path} has {number} annotations with the id {id}, which Detectron2 refuses: give "
                "each an id of its own, or let tools/prepare_dataset.py do it."
            )
    if "images" in content:
        check_same_kind([image["id"] for image in content["images"]], path)
        _check_some_match(content["images"], annotations, path)


def _loaded_annotation(category_ids: set[int]) -> tuple[Field, ...]:
    category = Field("category_id", one_of(category_ids, "the id of a category of the file"))
    # null is not 0, so the object would be a crowd for the training, which leaves these out.
    own = (Field("ignore", _NOT_IGNORED, False), Field("iscrowd", FLAG, False))
    return Field("id", INTEGER), *ANNOTATION, category, *own


def _check_some_match(
    images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]], path: str
) -> None:
    ids = {image["id"] for image in images}
    if not annotations or any(annotation["image_id"] in ids for annotation in annotations):
        return
    known = f"such as {images[0]['id']!r}" if images else "of which there are none"
    raise ValueError(
        f"None of the {len(annotations)} annotations in {path} is of an image of it: their "
        f"image_id, such as {annotations[0]['image_id']!r}, is none of the ids of images, {known}; "
        "make them agree."
    )
