"""Find the class names of a detector."""

import logging
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager
from yaml import YAMLError

from efpn_d2.config import add_efpn_config
from efpn_d2.data.datasets import register_synthetic
from efpn_d2.data.datasets.categories import category_names, num_classes_key
from efpn_d2.data.datasets.prepared import register_prepared
from efpn_d2.data.datasets.registration import SYNTHETIC_PREFIX
from efpn_d2.data.paths import path_candidates

logger = logging.getLogger(__name__)

# Errors raised for a config or file that is not as expected.
_ERRORS = (AssertionError, AttributeError, KeyError, OSError, TypeError, ValueError, YAMLError)


def find_class_names(cfg: CfgNode) -> list[str]:
    """Return a detector's class names, from the first dataset with the same number of classes.

    The datasets are those of the ``config.yaml`` that a training writes beside ``MODEL.WEIGHTS``,
    then those of ``cfg``. For a dataset in COCO format the JSON is sufficient; images are not
    needed.

    Args:
        cfg: the detector's config.

    Returns:
        The names by class id; empty, with a warning that gives the reason, if they are unknown.
    """
    key = num_classes_key(cfg)
    if key is None:
        return []
    number = reduce(lambda node, part: node[part], key.split("."), cfg)
    reasons = []
    for name, own_cfg in _data_sets(cfg):
        try:
            names = _names_of(name, own_cfg)
        except _ERRORS as error:
            reasons.append(f"{name}: {error}".rstrip("."))
            continue
        if len(names) == number:
            return names
        reasons.append(f"{name} has {len(names)} classes")
    found = "; ".join(dict.fromkeys(reasons)) or "the config names none"
    logger.warning(
        f"Classes are shown as numbers: {key} is {number}, and no dataset with as many names is "
        f"known ({found})."
    )
    return []


def _data_sets(cfg: CfgNode) -> Iterator[tuple[str, CfgNode]]:
    """Yield dataset names, most relevant first, each with its config."""
    trained = _config_of_training(cfg.MODEL.WEIGHTS)
    if trained is not None:
        for name in (*trained.DATASETS.TRAIN, *trained.DATASETS.TEST):
            yield name, trained
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        yield name, cfg


def _config_of_training(weights: str) -> CfgNode | None:
    """Return the config beside a weights file; None if there is none that can be read."""
    path = Path(weights).parent / "config.yaml"
    if not weights or "://" in weights or not path.is_file():
        return None
    cfg = get_cfg()
    add_efpn_config(cfg)
    try:
        cfg.merge_from_file(str(path), allow_unsafe=False)
    except _ERRORS as error:
        logger.debug("%s is not a config of this version: %s", path, error)
        return None
    return cfg


def _names_of(name: str, cfg: CfgNode) -> list[str]:
    """Return the class names of a dataset named in a config.

    Raises:
        ValueError: if the dataset is unknown.
        AttributeError: if its config or its files are not as expected.
        OSError: if its config or its files are not as expected.
        KeyError: if its config or its files are not as expected.
        TypeError: if its config or its files are not as expected.
    """
    for own_name, json_file, _ in cfg.COCO_DATA.REGISTER:
        if own_name == name:
            places = path_candidates(json_file)
            there = next((place for place in places if PathManager.isfile(place)), None)
            if there is None:
                raise FileNotFoundError(f"{json_file} does not exist")
            return list(category_names(there))
    if name.startswith(SYNTHETIC_PREFIX):
        register_synthetic()
    register_prepared(name)
    if name not in DatasetCatalog.list():
        raise ValueError("no such dataset is registered")
    metadata = MetadataCatalog.get(name)
    return list(metadata.get("thing_classes") or category_names(metadata.json_file))
