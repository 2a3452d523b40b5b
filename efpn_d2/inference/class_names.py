"""Names of the classes that a model tells apart."""

import logging

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..data.datasets import register_datasets
from ..data.datasets.categories import category_names

logger = logging.getLogger(__name__)


def find_class_names(cfg: CfgNode) -> list[str]:
    """Class names of the first data set of ``DATASETS.TEST``, which need not be on disk.

    Returns:
        The names by class id. Empty, with a warning that says why, if they cannot be known.
    """
    if not cfg.DATASETS.TEST:
        logger.warning("DATASETS.TEST is empty: classes are shown as numbers.")
        return []
    try:
        register_datasets(cfg)
        metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
        names = metadata.get("thing_classes")
        return list(names if names else category_names(metadata.json_file))
    except (AttributeError, OSError, ValueError) as error:
        logger.warning(f"Classes are shown as numbers, for their names are not known: {error}")
        return []
