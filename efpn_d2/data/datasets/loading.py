"""COCO JSONs as Detectron2 loads them, with coordinates as they are in the file."""

from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json

from efpn_d2.data.datasets.names import unique_names


def load_coco(json_file: str, image_root: str, name: str | None) -> list[dict[str, Any]]:
    """Load a COCO JSON by Detectron2's ``load_coco_json``.

    Coordinates are as of :func:`float_coordinates`, names of classes as of :func:`unique_names`.

    Args:
        json_file: the file.
        image_root: folder that its file names start from.
        name: of the data set, whose metadata get the classes; None: ids of classes stay the file's.

    Returns:
        Records of Detectron2's format.
    """
    if name is None:
        records = load_coco_json(json_file, image_root)
    else:
        # Metadata once set cannot be changed, so the loader sets others.
        own = f"{name}, as in its file"
        try:
            records = load_coco_json(json_file, image_root, own)
            classes = MetadataCatalog.get(own)
            ids = classes.thing_dataset_id_to_contiguous_id
            categories = [{"id": id, "name": classes.thing_classes[i]} for id, i in ids.items()]
        finally:
            MetadataCatalog.remove(own)
        MetadataCatalog.get(name).set(
            thing_classes=unique_names(categories), thing_dataset_id_to_contiguous_id=ids
        )
    for record in records:
        record["annotations"] = [float_coordinates(a) for a in record["annotations"]]
    return records


def float_coordinates(annotation: dict[str, Any]) -> dict[str, Any]:
    """An annotation whose box and polygons are of floats.

    Detectron2's transforms write their results into the array that they are given, and so cut
    integers to integers again at every step: up to a pixel each side.

    Args:
        annotation: of Detectron2's format; not changed.

    Returns:
        A copy that shares all else with it.
    """
    changed = dict(annotation)
    if "bbox" in changed:
        changed["bbox"] = [float(value) for value in changed["bbox"]]
    polygons = changed.get("segmentation")
    if isinstance(polygons, list):
        changed["segmentation"] = [[float(value) for value in polygon] for polygon in polygons]
    return changed
