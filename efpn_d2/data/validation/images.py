"""Validation of image records, against each other and against the files."""

import os
from pathlib import Path
from typing import Any

from efpn_d2.data.coco.record_checks import check_same_kind
from efpn_d2.data.validation.image_files import ImageFacts, inspect_images
from efpn_d2.data.validation.report import ValidationReport

# At COCO's usual input of 1333 px, objects of images with longer sides shrink more than 7.5 times.
_LARGE_SIDE = 10000


class CheckedImages:
    """The images that are kept, and what was done with the others.

    Attributes:
        records: image records with the sizes that Detectron2 will see.
        sizes: width and height by image id.
        merged: maps the id of an image that is listed again to the id that is kept.
        rotations: EXIF orientation and stored size of images whose boxes refer to the stored image,
            before rotation.
        dropped: ids of listed images that cannot be used.
    """

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.sizes: dict[int | str, tuple[int, int]] = {}
        self.merged: dict[int | str, int | str] = {}
        self.rotations: dict[int | str, tuple[int, tuple[int, int]]] = {}
        self.dropped: set[int | str] = set()


def check_images(
    records: list[Any],
    image_root: Path,
    report: ValidationReport,
    *,
    decode: bool = False,
    workers: int = 4,
    progress: str = "",
) -> CheckedImages:
    """Check image records and files; images that cannot be used are dropped and reported.

    Args:
        records: COCO's ``images``.
        image_root: folder to which file names are relative.
        report: findings are added to it.
        decode: see :func:`inspect_images`.
        workers: see :func:`inspect_images`.
        progress: see :func:`inspect_images`.

    Raises:
        ValueError: if some ids are numbers and others strings, which cannot be sorted.
    """
    checked = CheckedImages()
    listed = _distinct(records, checked, report)
    check_same_kind([record["id"] for record in listed], report.source)
    paths = [image_root / record["file_name"] for record in listed]
    all_facts = inspect_images(paths, decode=decode, workers=workers, progress=progress)
    for record, facts in zip(listed, all_facts, strict=True):
        finding = record.pop("_finding", None)
        if facts.problem:
            report.add(
                facts.problem,
                facts.message,
                file=record["file_name"],
                id=record["id"],
                action="dropped",
            )
            checked.dropped.add(record["id"])
            continue
        if finding is not None:
            report.add(**finding)
        _compare_size(record, facts, checked, report)
        _note_pixels(record, facts, report)
        record["width"], record["height"] = facts.width, facts.height
        checked.sizes[record["id"]] = (facts.width, facts.height)
        checked.records.append(record)
    return checked


def _distinct(
    records: list[Any], checked: CheckedImages, report: ValidationReport
) -> list[dict[str, Any]]:
    """Return the valid records with a unique id and a unique file."""
    by_id: dict[int | str, dict[str, Any]] = {}
    by_file: dict[str, int | str] = {}
    for number, record in enumerate(records):
        problem = _record_problem(record)
        if problem:
            place = {"file": report.source, "field": f"images[{number}]", "action": "dropped"}
            report.add("invalid_image_record", problem, **place)
            continue
        record, id = dict(record), record["id"]
        file = os.path.normpath(record["file_name"])
        source, source_id = record.pop("_source", (report.source, id))
        place = {"file": source, "id": source_id, "action": "merged"}
        if id in by_id and os.path.normpath(by_id[id]["file_name"]) != file:
            message = (
                f"the id is that of '{by_id[id]['file_name']}', and also of '{file}', which is "
                "dropped"
            )
            report.add("duplicate_image_id", message, **{**place, "action": "dropped"})
        elif file in by_file:
            message = f"'{file}' is already listed with the id {by_file[file]}"
            report.add("image_listed_twice", message, **place, field="file_name")
            if id != by_file[file]:
                checked.merged[id] = by_file[file]
        else:
            by_id[id], by_file[file] = record, id
    return list(by_id.values())


def _record_problem(record: Any) -> str:
    if not isinstance(record, dict):
        return f"{record!r} is not an object"
    if type(record.get("id")) not in (int, str):
        return f"its id is {record.get('id')!r}, but must be an integer or a string"
    if not isinstance(record.get("file_name"), str) or not record["file_name"]:
        return f"its file_name is {record.get('file_name')!r}, but must be a path"
    return ""


def _compare_size(
    record: dict[str, Any], facts: ImageFacts, checked: CheckedImages, report: ValidationReport
) -> None:
    said, place = (record.get("width"), record.get("height")), {"file": record["file_name"]}
    shown = (facts.width, facts.height)
    rotation = f"EXIF orientation {facts.orientation}"
    if said != shown and said == facts.stored_size:
        message = f"the size is {said}, but with {rotation} the image is {shown}"
        message += ": its boxes were rotated with it"
        report.add("rotated_image", message, **place, id=record["id"], action="corrected")
        checked.rotations[record["id"]] = (facts.orientation, facts.stored_size)
        return
    if facts.orientation > 1:
        message = f"{rotation}: its boxes are assumed to be those of the rotated image, {shown}"
        report.add("exif_orientation", message, **place, id=record["id"])
    if said not in ((None, None), shown):
        message = (
            f"the size in the annotations is {said}, but that of the file is {shown}, which is used"
        )
        report.add(
            "image_size_mismatch",
            message,
            **place,
            id=record["id"],
            field="width, height",
            action="corrected",
        )


def _note_pixels(record: dict[str, Any], facts: ImageFacts, report: ValidationReport) -> None:
    place = {"file": record["file_name"], "id": record["id"]}
    if facts.mode in ("1", "L", "LA"):
        report.add("grayscale_image", f"its pixels have Pillow's mode {facts.mode}", **place)
    if max(facts.width, facts.height) > _LARGE_SIDE:
        message = f"{facts.width} x {facts.height} pixels: cut it into tiles to find small objects"
        report.add("large_image", message, **place)
