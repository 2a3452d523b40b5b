"""The classes of a COCO JSON, compared with those of a model."""

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from efpn_d2.data.datasets.json_summary import read_summary


def category_names(json_file: str) -> tuple[str, ...]:
    """The classes of a COCO JSON in the order of their ids, which is the order Detectron2 uses.

    A name that several have is followed by the id, see :func:`.names.unique_names`.

    Raises:
        ValueError: the file is no COCO JSON, or has a record that Detectron2 could not load.
    """
    return read_summary(json_file).category_names


def num_classes_key(cfg: CfgNode) -> str | None:
    """The config key that holds the model's number of classes; None for class-agnostic models."""
    if "RetinaNet" in cfg.MODEL.META_ARCHITECTURE:
        return "MODEL.RETINANET.NUM_CLASSES"
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
        return None
    return "MODEL.ROI_HEADS.NUM_CLASSES"


def check_num_classes(cfg: CfgNode, name: str) -> None:
    """Check the model's number of classes against a registered data set.

    Only data sets with a COCO JSON on disk are looked at: for others the answer is either costly or
    not known.

    Raises:
        ValueError: the numbers differ.
    """
    key = num_classes_key(cfg)
    metadata = MetadataCatalog.get(name)
    json_file = metadata.get("json_file")
    if key is None or json_file is None or not PathManager.exists(json_file):
        return
    # Large sets that Detectron2 knows by name need not be read.
    classes = metadata.get("thing_classes") or category_names(json_file)
    node = cfg
    for part in key.split("."):
        node = node[part]
    if node != len(classes):
        raise ValueError(
            f"Data set '{name}' has {len(classes)} classes, but {key} is {node}: "
            f"set {key} to {len(classes)}."
        )
