"""Tsinghua-Tencent 100K, versions 2016 and 2021."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from efpn_d2.data.converters.source import (
    Converter,
    NamedReader,
    Option,
    RawDataset,
    Selection,
    choose_splits,
)
from efpn_d2.data.validation import ValidationReport
from efpn_d2.utils.files import read_json, read_text

ANNOTATION_FILES = {"2016": "annotations.json", "2021": "annotations_all.json"}
SPLITS = ("train", "test", "other")

# fmt: off
_IN_BOTH = (
    "i2", "i4", "i5", "il100", "il60", "il80", "ip", "p10", "p11", "p12", "p19", "p23", "p26",
    "p27", "p3", "p5", "p6", "pg", "ph4", "ph4.5", "ph5", "pl100", "pl120", "pl20", "pl30", "pl40",
    "pl5", "pl50", "pl60", "pl70", "pl80", "pm20", "pm30", "pm55", "pn", "pne", "pr40", "w13",
    "w32", "w55", "w57", "w59",
)
# fmt: on
# Classes with more than 100 instances, to which the usual evaluation is limited. Three classes of
# 2016 do not qualify in 2021, and three others do: results of the two are not comparable.
EVALUATED_CLASSES = {
    "2016": tuple(sorted([*_IN_BOTH, "io", "po", "wo"])),
    "2021": tuple(sorted([*_IN_BOTH, "i2r", "i4l", "p13"])),
}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def tt100k_name(version: str, split: str, only_45: bool = False) -> str:
    """Return the name of a prepared split, e.g. ``tt100k_2021_45_train``."""
    return f"tt100k_{version}_{'45_' if only_45 else ''}{split}"


def find_version(source: Path) -> str:
    """Return the version, 2016 or 2021, of the annotation file in a folder.

    Raises:
        FileNotFoundError: if there is no annotation file.
        ValueError: if both versions exist.
    """
    found = [version for version, file in ANNOTATION_FILES.items() if (source / file).is_file()]
    if len(found) > 1:
        raise ValueError(
            f"'{source}' has the annotations of both versions: choose --version 2016 or 2021."
        )
    if not found:
        raise FileNotFoundError(
            f"'{source}' has neither annotations.json (TT100K 2016) nor annotations_all.json "
            "(2021): --source must be the folder that holds it, with the folders train and test."
        )
    return found[0]


def read_tt100k(
    source: Path, version: str, split: str, report: ValidationReport, *, only_45: bool = False
) -> RawDataset:
    """Read a split in COCO format without checking it.

    The categories are all types of the version in the order of the file, with the ids 1, 2, ... The
    split ``test45`` has the same categories, but only the objects of the 45 evaluated classes in
    the images of ``test``, for a model that was trained on all classes.

    Args:
        source: folder with the annotation file and the folders of the splits.
        version: "2016" or "2021".
        split: "train", "test", "other" or "test45".
        report: findings are added to it.
        only_45: drop the other classes, including their categories, for a model with 45 classes.

    Raises:
        FileNotFoundError: if the annotations or the split's ``ids.txt`` are missing.
        ValueError: if the file is not an annotation file of this version of TT100K.
    """
    path = source / ANNOTATION_FILES[version]
    content, repeated = read_json(path)
    report.source = str(path)
    types = _check_content(content, path, version)
    for key in repeated:
        message = f"the key '{key}' occurs more than once; only the last is read"
        report.add("repeated_key", message, file=str(path), id=key)
    evaluated = set(EVALUATED_CLASSES[version])
    images = _read_images(content["imgs"], source, split.removesuffix("45"), path, report)
    objects = _read_objects(content["imgs"], images, set(types), path)
    left_out = set(types if only_45 or split == "test45" else ()) - evaluated
    kept = [o for o in objects if o["category_id"] not in left_out]
    names = [name for name in types if name in evaluated] if only_45 else types
    category_ids = {name: number for number, name in enumerate(names, start=1)}
    for number, annotation in enumerate(kept, start=1):
        annotation["id"] = number
        annotation["category_id"] = category_ids.get(annotation["category_id"])
    coco = {
        "info": {
            "description": f"Tsinghua-Tencent 100K {version}, {split}",
            "objects_of_classes_not_evaluated": len(objects) - len(kept),
        },
        "images": images,
        "annotations": kept,
        "categories": [{"id": number, "name": name} for name, number in category_ids.items()],
    }
    return RawDataset(coco, source, evaluated_classes=EVALUATED_CLASSES[version])


def _read_images(
    entries: dict[str, Any], source: Path, split: str, path: Path, report: ValidationReport
) -> list[dict[str, Any]]:
    images = []
    list_file = str(source / split / "ids.txt")
    for image_id in _split_ids(entries, source, split, path, report):
        # An image without signs may be listed without an entry in the annotations.
        image: dict[str, Any] = {"id": _number(image_id), "file_name": f"{split}/{image_id}.jpg"}
        image["_source"] = (list_file, image_id)
        images.append(image)
        if image_id in entries:
            image["file_name"] = file_name = _path(entries[image_id], image_id, path)
            if Path(file_name).parts[0] != split:
                message = f"it is listed in the split {split}, but its path is '{file_name}'"
                report.add("image_in_two_splits", message, file=str(path), id=image_id)
        else:
            message = (
                f"{path.name} has no entry '{image_id}'; the image is used as one without signs"
            )
            finding = {"kind": "image_without_annotations", "message": message}
            image["_finding"] = {**finding, "file": list_file, "id": image_id}
    return images


def _read_objects(
    entries: dict[str, Any], images: list[dict[str, Any]], types: set[str], path: Path
) -> list[dict[str, Any]]:
    objects = []
    for image_id in dict.fromkeys(image["id"] for image in images):
        place, members = f"imgs/{image_id}", entries.get(str(image_id), {}).get("objects") or ()
        if not isinstance(members, (list, tuple)):
            message = f"the objects are {members!r}, but must be a list"
            problem = {"category_id": None, "_problem": ("invalid_annotation", "objects", message)}
            objects.append({"image_id": image_id, "_source": (str(path), place), **problem})
            continue
        for index, item in enumerate(members):
            source = (str(path), f"{place}/objects/{index}")
            objects.append({"image_id": image_id, "_source": source, **_read_object(item, types)})
    return objects


def _read_object(item: Any, types: set[str]) -> dict[str, Any]:
    """Return the class name and the box of an object, or its problem."""
    if not isinstance(item, dict):
        problem = (
            "invalid_annotation",
            "",
            f"{item!r} is not an object with a category and a bbox",
        )
        return {"category_id": None, "_problem": problem}
    category: Any = item.get("category")
    box: Any = item.get("bbox")
    if not isinstance(category, str) or category not in types:
        what = "it has no category" if category is None else f"its category is {category!r}"
        message = f"{what}, but must be one of the file's types"
        return {"category_id": None, "_problem": ("unknown_category", "category", message)}
    try:
        x0, y0, x1, y1 = (box[corner] for corner in _CORNERS)
        xywh = [x0, y0, x1 - x0, y1 - y0]
    except (KeyError, TypeError):  # also rejects four bare numbers, which this format does not have
        message = f"the box {box!r} needs the numbers {', '.join(_CORNERS)}"
        return {"category_id": category, "_problem": ("invalid_box", "bbox", message)}
    return {"category_id": category, "bbox": xywh, "area": xywh[2] * xywh[3], "iscrowd": 0}


def _check_content(content: Any, path: Path, version: str) -> list[str]:
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("types"), list)
        or not isinstance(content.get("imgs"), dict)
    ):
        raise ValueError(
            f"'{path}' is not an annotation file of TT100K: it needs 'types' and 'imgs'."
        )
    types = content["types"]
    missing = [name for name in EVALUATED_CLASSES[version] if name not in types]
    other = "2021" if version == "2016" else "2016"
    if missing and all(name in types for name in EVALUATED_CLASSES[other]):
        raise ValueError(
            f"'{path}' has the classes of TT100K {other}, without {missing} of {version}: give "
            f"--version {other} and name the file {ANNOTATION_FILES[other]}."
        )
    if missing:
        raise ValueError(
            f"'{path}' lacks the evaluated classes {missing} of TT100K {version}: get it again."
        )
    return types


def _split_ids(
    entries: dict[str, Any], source: Path, split: str, path: Path, report: ValidationReport
) -> list[str]:
    lists = {name: source / name / "ids.txt" for name in SPLITS}
    if not lists[split].is_file():
        raise FileNotFoundError(
            f"'{lists[split]}', which lists the images of the split {split}, is missing: put the "
            "image folder there, with its ids.txt."
        )
    ids = {name: read_text(file).split() for name, file in lists.items() if file.is_file()}
    for other, members in ids.items():
        for image_id in sorted(set(members) & set(ids[split]) if other != split else ()):
            message = f"the image is in the splits {split} and {other}"
            report.add("image_in_two_splits", message, file=str(lists[other]), id=image_id)
    in_none = set(entries).difference(*ids.values())
    for image_id in sorted(in_none if len(ids) == len(SPLITS) else ()):
        message = "no ids.txt lists the image, so it is not used"
        report.add("image_in_no_split", message, file=str(path), id=image_id, action="dropped")
    return ids[split]


def _number(image_id: str) -> int | str:
    # Only ids that read the same again are converted, since the id is the key of the image's
    # objects.
    return int(image_id) if image_id.isdecimal() and str(int(image_id)) == image_id else image_id


def _path(entry: Any, image_id: str, file: Path) -> str:
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(path, str):
        raise ValueError(f"'{file}' has no path for the image '{image_id}': get it again.")
    return os.path.normpath(path)


def _recognises(source: Path) -> bool:
    folders = (source, source / "data")
    return any(
        (folder / file).is_file() for folder in folders for file in ANNOTATION_FILES.values()
    )


def _find(source: Path, selection: Selection) -> Iterator[NamedReader]:
    if not source.is_dir():
        raise FileNotFoundError(f"--source '{source}' is no folder.")
    if (source / "data").is_dir() and not (source / "train").is_dir():
        source = source / "data"
    version = selection.options.get("version") or find_version(source)
    only_45 = selection.options.get("classes") == "45"
    there = [split for split in SPLITS if (source / split / "ids.txt").is_file()]
    if "test" in there and not only_45:
        there.append("test45")
    for split in choose_splits(selection.splits, there, (*SPLITS, "test45"), source):
        read = partial(read_tt100k, source, version, split, only_45=only_45)
        yield tt100k_name(version, split, only_45), read


TT100K = Converter(
    "tt100k",
    "Tsinghua-Tencent 100K of 2016 or 2021",
    _recognises,
    _find,
    protocol="tt100k",
    options=(
        Option("version", "default: detected from the file names", tuple(ANNOTATION_FILES)),
        Option(
            "classes",
            "all: train, test and other with all classes, and test45 with the objects of the 45 "
            "evaluated ones; 45: a dataset that has only those",
            ("all", "45"),
            "all",
        ),
    ),
)
