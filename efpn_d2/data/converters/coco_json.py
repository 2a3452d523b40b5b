"""COCO, and any dataset in its format."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from efpn_d2.data.converters.source import (
    Converter,
    NamedReader,
    Option,
    RawDataset,
    Selection,
    choose_splits,
)
from efpn_d2.data.validation import ValidationReport
from efpn_d2.utils.files import read_json


def find_coco_splits(source: Path) -> dict[str, tuple[Path, Path]]:
    """Find the JSON and the image folder of each split in a folder with COCO's layout.

    The layout is ``annotations/instances_SPLIT.json`` and a folder ``SPLIT`` or ``images/SPLIT``.

    Raises:
        FileNotFoundError: if the images of a split are missing.
    """
    splits = {}
    for path in sorted((source / "annotations").glob("instances_*.json")):
        split = path.stem.removeprefix("instances_")
        places = [source / split, source / "images" / split]
        folder = next((place for place in places if place.is_dir()), None)
        if folder is None:
            raise FileNotFoundError(
                f"The images of '{path}' are neither in {places[0]} nor in {places[1]}: give the "
                "JSON as --source, with --images."
            )
        splits[split] = (path, folder)
    return splits


def read_coco(json_file: Path, image_root: Path, report: ValidationReport) -> RawDataset:
    """Read a COCO JSON without checking it.

    Args:
        json_file: path of the JSON.
        image_root: folder to which its file names are relative.
        report: findings are added to it; its source is set to the file.

    Raises:
        FileNotFoundError: if the file or the folder is missing.
        ValueError: if the file is not valid JSON.
    """
    if not image_root.is_dir():
        raise FileNotFoundError(f"The image folder '{image_root}' does not exist.")
    content, repeated = read_json(json_file)
    report.source = str(json_file)
    for key in repeated:
        message = f"the key '{key}' occurs more than once in an object; only the last is read"
        report.add("repeated_key", message, file=str(json_file), field=key)
    return RawDataset(content, image_root)


def _recognises(source: Path) -> bool:
    if source.is_file():
        return source.suffix == ".json"
    return any((source / "annotations").glob("instances_*.json"))


def _find(source: Path, selection: Selection) -> Iterator[NamedReader]:
    images, name = selection.options.get("images"), selection.options.get("name")
    if not source.is_dir():
        if images is None:
            raise ValueError("--source is a file, so --images must be the folder of its images.")
        if selection.splits:
            raise ValueError("--splits is for a folder as --source; a file is one dataset.")
        yield name or source.stem, partial(read_coco, source, images)
        return
    if images or name:
        raise ValueError("--images and --name are for a JSON as --source, which is a folder.")
    found = find_coco_splits(source)
    for split in choose_splits(selection.splits, list(found), list(found), source):
        yield f"{source.resolve().name}_{split}", partial(read_coco, *found[split])


COCO = Converter(
    "coco",
    "COCO, or any file in its format",
    _recognises,
    _find,
    options=(
        Option("images", "image folder, with a JSON as source", type=Path),
        Option("name", "of the dataset, with a JSON as source"),
    ),
)
