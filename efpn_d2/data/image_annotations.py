"""Look up the ground truth of image files in a dataset by file name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog

from efpn_d2.data.datasets import register_coco_sets, register_synthetic
from efpn_d2.data.datasets.categories import category_names
from efpn_d2.data.datasets.loading import load_coco
from efpn_d2.data.datasets.prepared import register_prepared


def load_records(source: str, coco_sets: Sequence[Sequence[str]] = ()) -> list[dict[str, Any]]:
    """Load a dataset in Detectron2's format.

    Args:
        source: a COCO JSON, whose file names are kept unchanged, or the name of a dataset.
        coco_sets: ``COCO_DATA.REGISTER`` of a config; registered if ``source`` is a name.

    Raises:
        ValueError: if ``source`` is neither.
        OSError: if a file of the dataset is missing.
    """
    if Path(source).is_file():
        category_names(source)  # reports what is wrong with a file that is not a COCO JSON
        return load_coco(source, "", None)
    register_synthetic()
    register_prepared(source)
    register_coco_sets(coco_sets)
    if source in DatasetCatalog.list():
        return DatasetCatalog.get(source)
    raise ValueError(f"'{source}' is neither a COCO JSON nor the name of a registered dataset.")


def find_records(
    records: Sequence[dict[str, Any]], images: Sequence[str | Path]
) -> list[dict[str, Any]]:
    """Find the record of each image file; its ``file_name`` is set to the given path.

    A record belongs to a file if the file's path ends with the record's.

    Raises:
        ValueError: if an image does not match exactly one record.
    """
    return [_find_record(records, Path(image)) for image in images]


def _find_record(records: Sequence[dict[str, Any]], image: Path) -> dict[str, Any]:
    parts = image.resolve().parts
    found = []
    for record in records:
        own = Path(record["file_name"]).parts
        if parts[-len(own) :] == own:
            found.append(record)
    if len(found) != 1:
        raise ValueError(
            f"The annotations have {len(found) or 'no'} entries for the image '{image}': exactly "
            "one file_name must be the end of its path."
        )
    return {**found[0], "file_name": str(image)}
