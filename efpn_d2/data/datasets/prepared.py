"""Prepared data sets: a checked COCO JSON, its report, and what is needed to use it by name."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from efpn_d2.data.datasets.files import read_json, write_json
from efpn_d2.data.datasets.keypoints import common_keypoints, keypoint_metadata
from efpn_d2.data.datasets.loading import load_coco
from efpn_d2.data.datasets.names import unique_names
from efpn_d2.data.datasets.paths import dataset_root
from efpn_d2.data.datasets.validation import Report

# How a data set's results are usually measured; the metadata's field "protocol".
PROTOCOLS = ("coco", "aitod", "tt100k", "visdrone")


@dataclass(frozen=True)
class PreparedFiles:
    """Where the files of a prepared data set are.

    Attributes:
        folder: of all prepared data sets; None: ``prepared`` in the folder of all data sets.
        name: of the data set.
    """

    folder: Path | None
    name: str

    @property
    def json_file(self) -> Path:
        """The COCO JSON."""
        return self._file(".json")

    @property
    def report(self) -> Path:
        """What its validation found."""
        return self._file(".report.json")

    @property
    def description(self) -> Path:
        """Its image folder, protocol and classes: written last, so what it describes is there."""
        return self._file(".dataset.json")

    def _file(self, suffix: str) -> Path:
        folder = dataset_root() / "prepared" if self.folder is None else self.folder
        return folder / f"{self.name}{suffix}"


def write_prepared(
    files: PreparedFiles,
    coco: dict[str, Any],
    report: Report,
    *,
    image_root: Path,
    protocol: str = "coco",
    evaluated_classes: Sequence[str] | None = None,
) -> None:
    """Write a data set that :func:`clean_coco` has checked, and its report; images stay in place.

    Args:
        files: where to.
        coco: the data set.
        report: of its validation.
        image_root: folder that the file names of its images start from.
        protocol: one of :data:`PROTOCOLS`.
        evaluated_classes: names of those that are evaluated; None: all.
    """
    files.description.unlink(missing_ok=True)
    write_json(files.report, report.as_dict(), indent=1)
    write_json(files.json_file, coco)
    description = {
        "image_root": os.path.abspath(image_root),
        # For a tree of data sets that moves to another place as a whole.
        "image_root_from_here": os.path.relpath(image_root, files.description.parent),
        "protocol": protocol,
        "evaluated_classes": None if evaluated_classes is None else list(evaluated_classes),
        "classes": [c["name"] for c in sorted(coco["categories"], key=lambda c: c["id"])],
        "keypoints": list(common_keypoints(coco["categories"]) or ()),
    }
    write_json(files.description, description, indent=1)


def register_prepared(name: str) -> bool:
    """Register the data set ``name`` if it is prepared below ``$DETECTRON2_DATASETS``.

    Called again it changes nothing, unless the data sets are in another folder by then. A data set
    of that name that comes from elsewhere stays.

    Returns:
        Whether ``name`` is registered by this function.

    Raises:
        FileNotFoundError: the images are not where they were when the set was prepared.
    """
    files = PreparedFiles(None, name)
    if not files.description.is_file() or not files.json_file.is_file():
        return False
    json_file = os.path.abspath(files.json_file)
    if name in DatasetCatalog.list():
        metadata = MetadataCatalog.get(name)
        if not metadata.get("prepared"):
            return False
        if metadata.json_file == json_file:
            return True
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    description, _ = read_json(files.description)
    image_root = _image_root(description, files)
    DatasetCatalog.register(name, partial(load_coco, json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=json_file,
        image_root=image_root,
        evaluator_type="coco",
        prepared=True,
        **_metadata(description, json_file),
    )
    return True


def prepared_image_root(json_file: Path) -> str:
    """The image folder of a prepared data set, by its JSON.

    Raises:
        FileNotFoundError: the set is not prepared, or its images are elsewhere by now.
    """
    files = PreparedFiles(json_file.parent, json_file.stem)
    if not files.description.is_file():
        raise FileNotFoundError(
            f"'{json_file}' is no prepared data set, for {files.description.name} is not beside "
            "it: run tools/prepare_dataset.py first."
        )
    return _image_root(read_json(files.description)[0], files)


def protocol_metadata(json_file: str) -> dict[str, Any]:
    """The metadata ``protocol``, ``evaluated_classes`` and keypoints of any COCO JSON.

    A prepared data set says them; for all others they are "coco" and no entry.
    """
    path = Path(json_file)
    description = PreparedFiles(path.parent, path.stem).description
    if "://" in str(json_file) or not description.is_file():
        return {"protocol": "coco"}
    content = json.loads(description.read_text())
    metadata = _metadata(content, json_file)
    return {key: value for key, value in metadata.items() if key != "thing_classes"}


def _metadata(description: dict[str, Any], json_file: str) -> dict[str, Any]:
    classes = description["classes"]
    if len(set(classes)) < len(classes):  # prepared by a version that let equal names be
        classes = unique_names(
            sorted(read_json(json_file)[0]["categories"], key=lambda category: category["id"])
        )
    metadata = {"protocol": description["protocol"], "thing_classes": classes}
    metadata |= keypoint_metadata(description.get("keypoints"))
    if description["evaluated_classes"] is not None:
        metadata["evaluated_classes"] = description["evaluated_classes"]
    return metadata


def _image_root(description: dict[str, Any], files: PreparedFiles) -> str:
    from_here = os.path.join(files.description.parent, description["image_root_from_here"])
    places = [os.path.abspath(from_here), description["image_root"]]
    for place in places:
        if os.path.isdir(place):
            return place
    raise FileNotFoundError(
        f"The images of data set '{files.name}' are neither in {' nor in '.join(places)}: put them "
        "there, or run tools/prepare_dataset.py again."
    )
