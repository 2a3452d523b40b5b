"""COCO, and any data set in its format."""

from pathlib import Path

from efpn_d2.data.datasets.files import read_json
from efpn_d2.data.datasets.source import RawDataset
from efpn_d2.data.datasets.validation import Report


def find_coco_splits(source: Path) -> dict[str, tuple[Path, Path]]:
    """The JSON and the image folder of each split below a folder that is laid out as COCO's.

    That is ``annotations/instances_SPLIT.json`` and the folder ``SPLIT`` or ``images/SPLIT``.

    Raises:
        FileNotFoundError: the images of a split are missing.
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


def read_coco(json_file: Path, image_root: Path, report: Report) -> RawDataset:
    """Read a COCO JSON, not yet checked.

    Args:
        json_file: the file.
        image_root: folder that the file names of its images start from.
        report: findings are added to it; its source becomes the file.

    Raises:
        FileNotFoundError: the file or the folder is missing.
        ValueError: the file is no JSON.
    """
    if not image_root.is_dir():
        raise FileNotFoundError(f"The image folder '{image_root}' does not exist.")
    content, repeated = read_json(json_file)
    report.source = str(json_file)
    for key in repeated:
        message = f"the key '{key}' is there more than once in an object; only the last is read"
        report.add("repeated_key", message, file=str(json_file), field=key)
    return RawDataset(content, image_root)
