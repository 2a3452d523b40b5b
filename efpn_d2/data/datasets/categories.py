"""Compare the classes of a COCO JSON with those of a model."""

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from efpn_d2.data.coco.json_summary import read_summary


def category_names(json_file: str) -> tuple[str, ...]:
    """Return the classes of a COCO JSON in the order of their ids, as Detectron2 does.

    The id is appended to names that occur more than once; see :func:`.names.unique_names`.

    Raises:
        ValueError: if the file is not a COCO JSON, or has a record that Detectron2 cannot load.
    """
    return read_summary(json_file).category_names


def num_classes_key(cfg: CfgNode) -> str | None:
    """Return the config key of the number of classes; None for class-agnostic models."""
    if "RetinaNet" in cfg.MODEL.META_ARCHITECTURE:
        return "MODEL.RETINANET.NUM_CLASSES"
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
        return None
    return "MODEL.ROI_HEADS.NUM_CLASSES"


def check_num_classes(cfg: CfgNode, name: str) -> None:
    """Check the model's number of classes against a registered dataset.

    Only datasets with a COCO JSON on disk are checked: for others the number is costly to read or
    unknown.

    Raises:
        ValueError: if the numbers differ.
    """
    key = num_classes_key(cfg)
    metadata = MetadataCatalog.get(name)
    json_file = metadata.get("json_file")
    if key is None or json_file is None or not PathManager.exists(json_file):
        return
    # Large datasets that Detectron2 knows by name need not be read.
    classes = metadata.get("thing_classes") or category_names(json_file)
    node = cfg
    for part in key.split("."):
        node = node[part]
    if node != len(classes):
        raise ValueError(
            f"Dataset '{name}' has {len(classes)} classes, but {key} is {node}: set {key} to "
            f"{len(classes)}."
        )
