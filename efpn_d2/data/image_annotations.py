"""The ground truth of single image files, looked up in a data set by their names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog

from efpn_d2.data.datasets import register_coco_sets, register_synthetic
from efpn_d2.data.datasets.categories import category_names
from efpn_d2.data.datasets.loading import load_coco
from efpn_d2.data.datasets.prepared import register_prepared


def load_records(source: str, coco_sets: Sequence[Sequence[str]] = ()) -> list[dict[str, Any]]:
    """The records of a data set in Detectron2's format.

    Args:
        source: a COCO JSON, whose file names are kept as they are, or the name of a data set.
        coco_sets: ``COCO_DATA.REGISTER`` of a config; registered if ``source`` is a name.

    Raises:
        ValueError: it is neither.
        OSError: a file of the data set is missing.
    """
    if Path(source).is_file():
        category_names(source)  # says what is wrong with a file that is no COCO JSON
        return load_coco(source, "", None)
    register_synthetic()
    register_prepared(source)
    register_coco_sets(coco_sets)
    if source in DatasetCatalog.list():
        return DatasetCatalog.get(source)
    raise ValueError(f"'{source}' is neither a COCO JSON nor the name of a registered data set.")


def find_records(
    records: Sequence[dict[str, Any]], images: Sequence[str | Path]
) -> list[dict[str, Any]]:
    """The record of each image file, with ``file_name`` as given.

    A record belongs to a file whose path ends with the record's.

    Raises:
        ValueError: not exactly one record belongs to an image.
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
            f"The annotations have {len(found) or 'no'} entries for the image '{image}': their "
            "file_name must be the end of its path, and of no other's."
        )
    return {**found[0], "file_name": str(image)}
