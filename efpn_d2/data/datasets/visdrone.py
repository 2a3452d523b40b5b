"""VisDrone-DET: one text file per image."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from efpn_d2.data.datasets.files import read_text
from efpn_d2.data.datasets.source import RawDataset
from efpn_d2.data.datasets.validation import Report

SPLITS = ("train", "val", "test-dev")
# Categories 1 to 10.
CLASS_NAMES = (
    "pedestrian",
    "people",
    "bicycle",
    "car",
    "van",
    "truck",
    "tricycle",
    "awning-tricycle",
    "bus",
    "motor",
)
IGNORED_REGION, OTHERS = 0, 11
_FOR_ALL_CLASSES = (IGNORED_REGION, OTHERS)
_FIELDS = ("x", "y", "w", "h", "score", "category", "truncation", "occlusion")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def find_split(source: Path, split: str) -> Path | None:
    """The folder with ``images`` and ``annotations`` of a split; None if there is none."""
    for folder in (source / f"VisDrone2019-DET-{split}", source / split):
        if (folder / "annotations").is_dir():
            return folder
    if source.name == f"VisDrone2019-DET-{split}" and (source / "annotations").is_dir():
        return source
    return None


def read_visdrone(folder: Path, report: Report) -> RawDataset:
    """Read a split in COCO's format, not yet checked.

    What the official protocol ignores is ``iscrowd``: objects whose score is 0 for their class, and
    ignored regions and "others" for all classes, by one annotation per class that share their
    ``visdrone_line``. Each annotation keeps the four fields of its line that COCO does not have, as
    ``visdrone_score``, ``visdrone_category``, ``truncation`` and ``occlusion``.

    Args:
        folder: of the split, with the folders ``images`` and ``annotations``.
        report: findings are added to it.

    Raises:
        FileNotFoundError: one of the two folders is missing.
    """
    report.source = str(folder)
    image_dir, annotation_dir = folder / "images", folder / "annotations"
    for path in (image_dir, annotation_dir):
        if not path.is_dir():
            raise FileNotFoundError(
                f"'{path}' is missing: a split of VisDrone-DET has the folders images and "
                "annotations (test-challenge has no annotations and cannot be prepared)."
            )
    files = sorted(p.name for p in image_dir.iterdir() if p.suffix.lower() in _IMAGE_SUFFIXES)
    texts = {path.stem for path in annotation_dir.glob("*.txt")}
    _check_pairs({Path(name).stem for name in files}, texts, folder, report)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, name in enumerate(files, start=1):
        image: dict[str, Any] = {"id": number, "file_name": name}
        stem = Path(name).stem
        images.append(image)
        if stem in texts:
            annotations += _read_file(annotation_dir / f"{stem}.txt", number)
        else:
            image["_finding"] = _without_text(folder, stem)
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    coco = {
        "info": {"description": f"VisDrone-DET, {folder.name}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES, start=1)],
    }
    return RawDataset(coco, image_dir, "visdrone", finish=_ignore_for_all_classes)


def _check_pairs(images: set[str], texts: set[str], folder: Path, report: Report) -> None:
    for stem in sorted(texts - images):
        message = "there is no image of that name, so all its lines are dropped"
        file = str(folder / "annotations" / f"{stem}.txt")
        report.add("missing_image", message, file=file, id=stem, action="dropped")


def _without_text(folder: Path, stem: str) -> dict[str, str]:
    """What is to be said of an image without annotations."""
    message = f"annotations/{stem}.txt is missing; the image counts as one without object"
    kind, file = "image_without_annotations", str(folder / "images")
    return {"kind": kind, "message": message, "file": file, "id": stem}


def _read_file(path: Path, image_id: int) -> Iterator[dict[str, Any]]:
    try:
        text = read_text(path)
    except ValueError as error:
        problem = ("invalid_annotation", "", f"no line of it can be read: {error}")
        yield {"image_id": image_id, "_source": (str(path), None), "_problem": problem}
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        place = {"image_id": image_id, "_source": (str(path), number)}
        try:
            values = _parse(line)
        except ValueError as error:
            message = f"the line '{line.strip()}' {error}"
            yield {**place, "_problem": ("invalid_annotation", "", message)}
            continue
        category = values["category"]
        for_all_classes = category in _FOR_ALL_CLASSES
        yield {
            "category_id": 1 if for_all_classes else category,
            "bbox": [values["x"], values["y"], values["w"], values["h"]],
            "area": values["w"] * values["h"],
            "iscrowd": int(for_all_classes or values["score"] == 0),
            "visdrone_line": number,
            "visdrone_category": category,
            "visdrone_score": values["score"],
            "truncation": values["truncation"],
            "occlusion": values["occlusion"],
            **place,
        }


def _parse(line: str) -> dict[str, float]:
    # Some of the official lines end with a comma.
    parts = line.strip().rstrip(",").split(",")
    if len(parts) != len(_FIELDS):
        raise ValueError(f"has {len(parts)} values, but needs the 8 {', '.join(_FIELDS)}")
    values = {}
    for field, part in zip(_FIELDS, parts, strict=True):
        try:
            value = float(part)
        except ValueError as error:
            raise ValueError(f"has a value that is no number: {field} is '{part}'") from error
        # Those of the box are checked with all other boxes.
        if not math.isfinite(value) and field not in _FIELDS[:4]:
            raise ValueError(f"has a value that is not finite: {field} is {value}")
        values[field] = int(value) if value.is_integer() else value
    return values


def _ignore_for_all_classes(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each ignored region once per class: COCO's evaluation has no other way to say it."""
    result: list[dict[str, Any]] = []
    for annotation in annotations:
        if annotation["visdrone_category"] not in _FOR_ALL_CLASSES:
            result.append(annotation)
            continue
        for category_id in range(1, len(CLASS_NAMES) + 1):
            result.append({**annotation, "category_id": category_id})
    for number, annotation in enumerate(result, start=1):
        annotation["id"] = number
    return result
