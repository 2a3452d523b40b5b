"""Checks of a data set's images: their records against each other and against the files."""

import os
from pathlib import Path
from typing import Any

from efpn_d2.data.datasets.record_checks import check_same_kind
from efpn_d2.data.datasets.validation.image_files import ImageFacts, inspect_images
from efpn_d2.data.datasets.validation.report import Report

# Scaled to COCO's usual input of 1333 px, objects of images with longer sides shrink 7.5 times.
_LARGE_SIDE = 10000


class CheckedImages:
    """The images that stay, and what became of the others.

    Attributes:
        records: image records with the sizes that Detectron2 will see.
        sizes: width and height by image id.
        merged: for the id of an image listed again, the id that it stays by.
        rotations: for images whose boxes are those of the stored, not yet rotated image: EXIF
            orientation and stored size.
        dropped: ids of images that were listed, but cannot be used.
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
    report: Report,
    *,
    decode: bool = False,
    workers: int = 4,
    progress: str = "",
) -> CheckedImages:
    """Check image records and files; each image that cannot be used is dropped and reported.

    Args:
        records: COCO's ``images``.
        image_root: folder that file names start from.
        report: findings are added to it.
        decode, workers, progress: see :func:`inspect_images`.

    Raises:
        ValueError: some ids are numbers and others strings, so that they have no order.
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


def _distinct(records: list[Any], checked: CheckedImages, report: Report) -> list[dict[str, Any]]:
    """Valid records with an id and a file of their own."""
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
            message = f"the id is that of '{by_id[id]['file_name']}', and of '{file}', which is out"
            report.add("duplicate_image_id", message, **{**place, "action": "dropped"})
        elif file in by_file:
            message = f"'{file}' is listed already, by the id {by_file[file]}"
            report.add("image_listed_twice", message, **place, field="file_name")
            if id != by_file[file]:
                checked.merged[id] = by_file[file]
        else:
            by_id[id], by_file[file] = record, id
    return list(by_id.values())


def _record_problem(record: Any) -> str:
    if not isinstance(record, dict):
        return f"{record!r} is no object"
    if type(record.get("id")) not in (int, str):
        return f"its id is {record.get('id')!r}, but must be an integer or a string"
    if not isinstance(record.get("file_name"), str) or not record["file_name"]:
        return f"its file_name is {record.get('file_name')!r}, but must be a path"
    return ""


def _compare_size(
    record: dict[str, Any], facts: ImageFacts, checked: CheckedImages, report: Report
) -> None:
    said, place = (record.get("width"), record.get("height")), {"file": record["file_name"]}
    shown = (facts.width, facts.height)
    rotation = f"EXIF orientation {facts.orientation}"
    if said != shown and said == facts.stored_size:
        message = f"the size is {said}, but shown with {rotation} the image is {shown}"
        message += ": its boxes were rotated with it"
        report.add("rotated_image", message, **place, id=record["id"], action="corrected")
        checked.rotations[record["id"]] = (facts.orientation, facts.stored_size)
        return
    if facts.orientation > 1:
        message = f"{rotation}: its boxes are taken to be those of the rotated image, {shown}"
        report.add("exif_orientation", message, **place, id=record["id"])
    if said not in ((None, None), shown):
        message = f"the size is said to be {said}, but the file's is {shown}, which counts now"
        report.add(
            "image_size_mismatch",
            message,
            **place,
            id=record["id"],
            field="width, height",
            action="corrected",
        )


def _note_pixels(record: dict[str, Any], facts: ImageFacts, report: Report) -> None:
    place = {"file": record["file_name"], "id": record["id"]}
    if facts.mode in ("1", "L", "LA"):
        report.add("grayscale_image", f"its pixels are of Pillow's mode {facts.mode}", **place)
    if max(facts.width, facts.height) > _LARGE_SIDE:
        message = f"{facts.width} x {facts.height} pixels: cut it into tiles to find small objects"
        report.add("large_image", message, **place)
