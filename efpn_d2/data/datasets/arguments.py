"""Command-line options that train or evaluate on COCO-format files without any config line."""

import argparse
import logging
from pathlib import Path

from detectron2.config import CfgNode

from efpn_d2.data.datasets.categories import category_names
from efpn_d2.data.datasets.paths import path_candidates
from efpn_d2.data.datasets.registration import register_coco_sets

logger = logging.getLogger(__name__)


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--train-json``, ``--train-images``, ``--test-json`` and ``--test-images``."""
    group = parser.add_argument_group(
        "COCO-format data",
        "In place of DATASETS.TRAIN and DATASETS.TEST; the number of classes follows the files.",
    )
    for role, use in (("train", "to train on"), ("test", "to evaluate on")):
        group.add_argument(f"--{role}-json", metavar="FILE", help=f"COCO JSON {use}")
        group.add_argument(f"--{role}-images", metavar="DIR", help="its image folder")


def apply_dataset_arguments(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Register the data sets given on the command line and make ``cfg`` use them, in place.

    Sets ``DATASETS.TRAIN``, ``DATASETS.TEST``, ``COCO_DATA.REGISTER`` (so that the saved config is
    complete) and the number of classes of ROI heads and RetinaNet. When only one of the two sets is
    given, the other becomes empty, for it would have other classes. Without any of the options
    nothing changes. A set is named after its file: ``signs.json`` becomes ``signs_train``.

    Args:
        cfg: a config that is not frozen.
        args: parsed by a parser that :func:`add_dataset_arguments` has extended.

    Raises:
        ValueError: a JSON without its image folder or the other way round, training and test files
            with different classes, or a file that is no COCO JSON.
        FileNotFoundError: a path that does not exist.
    """
    entries: dict[str, list[str]] = {}
    for role in ("train", "test"):
        json_file, image_root = getattr(args, f"{role}_json"), getattr(args, f"{role}_images")
        if bool(json_file) != bool(image_root):
            raise ValueError(f"--{role}-json and --{role}-images must be given together.")
        if json_file:
            entries[role] = [
                f"{Path(json_file).stem}_{role}",
                _argument_path(json_file, f"--{role}-json"),
                _argument_path(image_root, f"--{role}-images"),
            ]
    if not entries:
        return
    classes = {role: category_names(entry[1]) for role, entry in entries.items()}
    if len(set(classes.values())) > 1:
        raise ValueError(
            f"--train-json has the classes {list(classes['train'])}, but --test-json has "
            f"{list(classes['test'])}: both need the same classes, ordered alike by their ids."
        )
    register_coco_sets(entries.values())

    cfg.COCO_DATA.REGISTER = [
        *(entry for entry in cfg.COCO_DATA.REGISTER if entry not in entries.values()),
        *entries.values(),
    ]
    for role in ("train", "test"):
        cfg.DATASETS[role.upper()] = (entries[role][0],) if role in entries else ()
    num_classes = len(next(iter(classes.values())))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    cfg.MODEL.RETINANET.NUM_CLASSES = num_classes
    logger.info(
        "DATASETS.TRAIN %s, DATASETS.TEST %s, %d classes",
        cfg.DATASETS.TRAIN,
        cfg.DATASETS.TEST,
        num_classes,
    )


def _argument_path(path: str, option: str) -> str:
    """An absolute path: what a user types is meant relative to the working directory first."""
    candidates = path_candidates(path)[::-1]
    for candidate in candidates:
        if Path(candidate).exists():
            return candidate
    raise FileNotFoundError(f"{option}: '{path}' does not exist; tried {' and '.join(candidates)}.")
