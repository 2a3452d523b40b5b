"""Data sets that would fail late, found at the start."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from .json_summary import read_summary
from .registration import SYNTHETIC_PREFIX

_USES = {"TRAIN": "at the start of the training", "TEST": "at the evaluation"}


def check_files_exist(cfg: CfgNode, splits: Sequence[str] = ("TRAIN", "TEST")) -> None:
    """Check the COCO JSONs of registered data sets, which Detectron2 opens only when it needs them.

    That is after the training for those of ``DATASETS.TEST``. An address such as ``s3://...`` and
    data sets without a JSON are not looked at. What a JSON holds is looked at where
    :func:`register_datasets` reads it, too: in data sets that Detectron2 does not know by name.

    Args:
        cfg: a config that :func:`register_datasets` has seen; may be frozen.
        splits: keys of ``cfg.DATASETS``; ``("TEST",)`` where nothing is to be trained.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file of ``DATASETS.TEST`` lacks what COCO's evaluation reads.
    """
    for split in splits:
        for name in cfg.DATASETS[split]:
            metadata = MetadataCatalog.get(name)
            json_file = metadata.get("json_file")
            if json_file is None or "://" in str(json_file):
                continue
            if not PathManager.isfile(json_file):
                raise FileNotFoundError(
                    f"DATASETS.{split} names '{name}', but its file {json_file} does not exist, "
                    f"which would have shown only {_USES[split]}: {_ways_out(name, split)}."
                )
            # Those that Detectron2 knows by name have their classes, and are not read for them.
            if split == "TEST" and not metadata.get("thing_classes"):
                _check_annotations(name, json_file, metadata.get("evaluator_type"))


def _ways_out(name: str, split: str) -> str:
    option = f"--{split.lower()}-json"
    if name.startswith(SYNTHETIC_PREFIX):
        ways = ["run `python tools/make_synthetic.py`"]
    else:
        ways = [f"give {option} and {option.replace('json', 'images')}"]
    ways.append("set DETECTRON2_DATASETS to the folder that holds the data sets")
    if split == "TEST":
        ways.append('set DATASETS.TEST "()" to go without an evaluation')
    return ", or ".join(ways)


def _check_annotations(name: str, json_file: str, evaluator_type: str | None) -> None:
    if evaluator_type != "coco":
        return
    for key, count in read_summary(json_file).missing:
        raise ValueError(
            f"Data set '{name}' cannot be evaluated, because '{key}' is missing in {count} of "
            f"the annotations in {json_file}, and COCO's evaluation reads it: add it, or leave the "
            "set out of DATASETS.TEST."
        )
