"""AI-TOD and AI-TOD-v2, whose annotations are COCO JSONs of 800 x 800 images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from efpn_d2.data.datasets.coco_json import read_coco
from efpn_d2.data.datasets.source import RawDataset
from efpn_d2.data.datasets.validation import Report

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
# As the two versions name their files. Results on the two do not compare.
_FILE_NAMES = {"v1": "aitod_{split}_v1.json", "v2": "aitodv2_{split}.json"}


def find_aitod(source: Path, version: str | None) -> dict[tuple[str, str], tuple[Path, Path]]:
    """The JSON and the image folder of each (version, split) below a folder.

    Args:
        source: with the JSONs anywhere below it, by their official names, and the images in
            ``SPLIT/images``, ``images/SPLIT`` or ``SPLIT``.
        version: "v1" or "v2"; None: both, where they are.

    Raises:
        FileNotFoundError: there is no JSON, or the images of one are missing.
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
        f"images/{split} or {split}. Those from xView have to be rebuilt by the tools of AI-TOD."
    )


def read_aitod(json_file: Path, image_root: Path, report: Report) -> RawDataset:
    """Read a split, not yet checked: a COCO JSON whose classes and image sizes are known.

    Args, Raises: as :func:`read_coco`.
    """
    raw = read_coco(json_file, image_root, report)
    if isinstance(raw.coco, dict):
        _check_classes(raw.coco.get("categories"), json_file, report)
        _note_sizes(raw.coco.get("images"), report)
    return replace(raw, protocol="aitod")


def _check_classes(categories: Any, json_file: Path, report: Report) -> None:
    members = categories if isinstance(categories, list) else ()
    names = {str(c.get("name")) for c in members if isinstance(c, dict)}
    if names != set(CLASS_NAMES):
        missing = sorted(set(CLASS_NAMES) - names)
        new = sorted(names - set(CLASS_NAMES))
        message = f"the classes are not AI-TOD's: {missing} are missing, {new} are new"
        report.add("unexpected_classes", message, file=str(json_file), field="categories")


def _note_sizes(images: Any, report: Report) -> None:
    for image in images if isinstance(images, list) else ():
        size = (image.get("width"), image.get("height")) if isinstance(image, dict) else None
        if size not in (None, (None, None), _IMAGE_SIZE):
            message = f"the size is {size[0]} x {size[1]}, but AI-TOD's images have 800 x 800"
            file = str(image.get("file_name"))
            report.add("unexpected_image_size", message, file=file, id=image.get("id"))
