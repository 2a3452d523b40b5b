"""AI-TOD and AI-TOD-v2: COCO JSONs for images of 800 x 800 pixels."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from efpn_d2.data.converters.coco_json import read_coco
from efpn_d2.data.converters.source import (
    Converter,
    NamedReader,
    Option,
    RawDataset,
    Selection,
    choose_splits,
)
from efpn_d2.data.validation import ValidationReport

VERSIONS = ("v1", "v2")
SPLITS = ("train", "val", "trainval", "test")
CLASS_NAMES = (
    "airplane",
    "bridge",
    "storage-tank",
    "ship",
    "swimming-pool",
    "vehicle",
    "person",
    "wind-mill",
)
_IMAGE_SIZE = (800, 800)
# File names of the two versions. Results on the two are not comparable.
_FILE_NAMES = {"v1": "aitod_{split}_v1.json", "v2": "aitodv2_{split}.json"}


def find_aitod(source: Path, version: str | None) -> dict[tuple[str, str], tuple[Path, Path]]:
    """Find the JSON and the image folder of each (version, split) below a folder.

    Args:
        source: folder with the JSONs anywhere below it, under their official names, and the images
            in ``SPLIT/images``, ``images/SPLIT`` or ``SPLIT``.
        version: "v1" or "v2"; None: all that exist.

    Raises:
        FileNotFoundError: if there is no JSON, or its images are missing.
    """
    found = {}
    for number in VERSIONS if version is None else (version,):
        for split in SPLITS:
            name = _FILE_NAMES[number].format(split=split)
            for path in sorted(source.rglob(name))[:1]:
                found[number, split] = (path, _image_dir(source, split, path))
    if not found:
        raise FileNotFoundError(
            f"'{source}' has no annotation file of AI-TOD{' ' + version if version else ''}, such "
            "as annotations/aitod_trainval_v1.json or annotations/aitodv2_trainval.json: --source "
            "must be the folder that holds them and the images."
        )
    return found


def _image_dir(source: Path, split: str, json_file: Path) -> Path:
    places = [
        base / folder
        for base in dict.fromkeys((source, json_file.parent, json_file.parent.parent))
        for folder in (f"{split}/images", f"{split}/Images", f"images/{split}", split)
    ]
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"The images of '{json_file}' are not in '{source}': put them into {split}/images, "
        f"images/{split} or {split}. Those from xView must be generated with the tools of AI-TOD."
    )


def read_aitod(json_file: Path, image_root: Path, report: ValidationReport) -> RawDataset:
    """Read a split without checking it: a COCO JSON with known classes and image size.

    Args:
        json_file: path of the JSON.
        image_root: folder to which its file names are relative.
        report: findings are added to it.

    Raises:
        FileNotFoundError: if the file or the folder is missing.
        ValueError: if the file is not valid JSON.
    """
    raw = read_coco(json_file, image_root, report)
    if isinstance(raw.coco, dict):
        _check_classes(raw.coco.get("categories"), json_file, report)
        _note_sizes(raw.coco.get("images"), report)
    return raw


def _check_classes(categories: Any, json_file: Path, report: ValidationReport) -> None:
    members = categories if isinstance(categories, list) else ()
    names = {str(c.get("name")) for c in members if isinstance(c, dict)}
    if names != set(CLASS_NAMES):
        missing = sorted(set(CLASS_NAMES) - names)
        new = sorted(names - set(CLASS_NAMES))
        message = f"the classes are not AI-TOD's: missing {missing}, unknown {new}"
        report.add("unexpected_classes", message, file=str(json_file), field="categories")


def _note_sizes(images: Any, report: ValidationReport) -> None:
    for image in images if isinstance(images, list) else ():
        size = (image.get("width"), image.get("height")) if isinstance(image, dict) else None
        if size not in (None, (None, None), _IMAGE_SIZE):
            message = f"the size is {size[0]} x {size[1]}, but AI-TOD's images are 800 x 800"
            file = str(image.get("file_name"))
            report.add("unexpected_image_size", message, file=file, id=image.get("id"))


def _recognises(source: Path) -> bool:
    names = (name.format(split=split) for name in _FILE_NAMES.values() for split in SPLITS)
    return any(any(source.rglob(name)) for name in names)


def _find(source: Path, selection: Selection) -> Iterator[NamedReader]:
    found = find_aitod(source, selection.options.get("version"))
    there = [split for split in SPLITS if any(split == key[1] for key in found)]
    splits = choose_splits(selection.splits, there, SPLITS, source)
    for (version, split), (json_file, images) in found.items():
        if split in splits:
            yield f"aitod_{version}_{split}", partial(read_aitod, json_file, images)


AITOD = Converter(
    "aitod",
    "AI-TOD v1 or v2",
    _recognises,
    _find,
    protocol="aitod",
    options=(Option("version", "default: detected from the file names", VERSIONS),),
)
