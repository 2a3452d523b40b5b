"""Load COCO JSONs with Detectron2, with exact coordinates."""

from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json

from efpn_d2.data.coco.names import unique_names


def load_coco(json_file: str, image_root: str, name: str | None) -> list[dict[str, Any]]:
    """Load a COCO JSON with Detectron2's ``load_coco_json``.

    Coordinates are converted by :func:`float_coordinates`, and class names are made unique by
    :func:`unique_names`.

    Args:
        json_file: path of the file.
        image_root: folder to which its file names are relative.
        name: name of the dataset, whose metadata receive the classes; None: keep the category ids.

    Returns:
        Dataset dicts in Detectron2's format.
    """
    if name is None:
        records = load_coco_json(json_file, image_root)
    else:
        # Metadata cannot be changed once set, so the loader uses another name.
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
    """Convert the box and the polygons of an annotation to floats.

    Detectron2's transforms write their results into the given array, so integers would be truncated
    again at every step, by up to a pixel per side.

    Args:
        annotation: annotation in Detectron2's format; not modified.

    Returns:
        A copy that shares all other fields.
    """
    changed = dict(annotation)
    if "bbox" in changed:
        changed["bbox"] = [float(value) for value in changed["bbox"]]
    polygons = changed.get("segmentation")
    if isinstance(polygons, list):
        changed["segmentation"] = [[float(value) for value in polygon] for polygon in polygons]
    return changed
