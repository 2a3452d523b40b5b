"""Prepared datasets: a checked COCO JSON, its report, and a description to use it by name."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from efpn_d2.data.coco.keypoints import common_keypoints, keypoint_metadata
from efpn_d2.data.coco.names import unique_names
from efpn_d2.data.datasets.loading import load_coco
from efpn_d2.data.paths import dataset_root
from efpn_d2.data.validation import ValidationReport
from efpn_d2.utils.files import read_json, write_json


@dataclass(frozen=True)
class PreparedFiles:
    """Paths of a prepared dataset.

    Attributes:
        folder: folder of all prepared datasets; None: ``prepared`` in the dataset root.
        name: name of the dataset.
    """

    folder: Path | None
    name: str

    @property
    def json_file(self) -> Path:
        """Path of the COCO JSON."""
        return self._file(".json")

    @property
    def report(self) -> Path:
        """Path of the validation report."""
        return self._file(".report.json")

    @property
    def description(self) -> Path:
        """Path of the description (image folder, protocol, classes), which is written last."""
        return self._file(".dataset.json")

    def _file(self, suffix: str) -> Path:
        folder = dataset_root() / "prepared" if self.folder is None else self.folder
        return folder / f"{self.name}{suffix}"


def write_prepared(
    files: PreparedFiles,
    coco: dict[str, Any],
    report: ValidationReport,
    *,
    image_root: Path,
    protocol: str = "coco",
    evaluated_classes: Sequence[str] | None = None,
) -> None:
    """Write a dataset checked by :func:`clean_coco`, and its report; images stay in place.

    Args:
        files: where to write it.
        coco: the dataset.
        report: report of its validation.
        image_root: folder to which its file names are relative.
        protocol: usual evaluation protocol, a value of ``EVALUATION.PROTOCOL``; the metadata's
            field of that name.
        evaluated_classes: names of the evaluated classes; None: all.
    """
    files.description.unlink(missing_ok=True)
    write_json(files.report, report.as_dict(), indent=1)
    write_json(files.json_file, coco)
    description = {
        "image_root": os.path.abspath(image_root),
        # A relative path allows moving the whole folder of datasets.
        "image_root_from_here": os.path.relpath(image_root, files.description.parent),
        "protocol": protocol,
        "evaluated_classes": None if evaluated_classes is None else list(evaluated_classes),
        "classes": [c["name"] for c in sorted(coco["categories"], key=lambda c: c["id"])],
        "keypoints": list(common_keypoints(coco["categories"]) or ()),
    }
    write_json(files.description, description, indent=1)


def register_prepared(name: str) -> bool:
    """Register the dataset ``name`` if it is prepared below ``$DETECTRON2_DATASETS``.

    Calling this again has no effect unless ``$DETECTRON2_DATASETS`` has changed. A dataset of that
    name that was registered elsewhere is kept.

    Returns:
        Whether ``name`` is registered by this function.

    Raises:
        FileNotFoundError: if the images have moved since the dataset was prepared.
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
    """Return the image folder of a prepared dataset, given its JSON.

    Raises:
        FileNotFoundError: if the dataset is not prepared, or its images have moved.
    """
    files = PreparedFiles(json_file.parent, json_file.stem)
    if not files.description.is_file():
        raise FileNotFoundError(
            f"'{json_file}' is not a prepared dataset, because {files.description.name} is not "
            "beside it: run tools/prepare_dataset.py first."
        )
    return _image_root(read_json(files.description)[0], files)


def protocol_metadata(json_file: str) -> dict[str, Any]:
    """Return the metadata ``protocol``, ``evaluated_classes`` and keypoints of any COCO JSON.

    They are read from the description of a prepared dataset; otherwise the protocol is "coco",
    without evaluated classes.
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
    if len(set(classes)) < len(classes):  # prepared by a version that allowed equal names
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
        f"The images of dataset '{files.name}' are neither in {' nor in '.join(places)}: put them "
        "there, or run tools/prepare_dataset.py again."
    )
