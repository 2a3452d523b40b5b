"""Data sets that would fail late, found at the start."""

from collections.abc import Iterator, Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from efpn_d2.data.datasets.image_checks import check_images, image_sizes
from efpn_d2.data.datasets.json_summary import read_summary
from efpn_d2.data.datasets.registration import SYNTHETIC_PREFIX

_USES = {"TRAIN": "at the start of the training", "TEST": "at the evaluation"}

# Protocols that evaluate neither masks nor keypoints.
_BOXES_ALONE = ("tt100k", "visdrone")


def check_files_exist(cfg: CfgNode, splits: Sequence[str] = ("TRAIN", "TEST")) -> None:
    """Check the files of registered data sets, which Detectron2 opens only when it needs them.

    That is after the training for those of ``DATASETS.TEST``. An address such as ``s3://...`` and
    data sets without a JSON are not looked at. What a JSON holds is looked at where
    :func:`register_datasets` reads it, too: in data sets that Detectron2 does not know by name and
    that are not prepared. Of these, the main process reads the images' headers as well.

    Args:
        cfg: a config that :func:`register_datasets` has seen; may be frozen.
        splits: keys of ``cfg.DATASETS``; ``("TEST",)`` where nothing is to be trained.

    Raises:
        FileNotFoundError: a JSON is missing.
        ValueError: a file of ``DATASETS.TEST`` lacks what COCO's evaluation reads, or images cannot
            be used.
    """
    for split in splits:
        for name in cfg.DATASETS[split]:
            json_file = MetadataCatalog.get(name).get("json_file")
            if json_file is None or "://" in str(json_file):
                continue
            if not PathManager.isfile(json_file):
                raise FileNotFoundError(
                    f"DATASETS.{split} names '{name}', but its file {json_file} does not exist, "
                    f"which would have shown only {_USES[split]}: {_ways_out(name, split)}."
                )
    for split, name, json_file in _unchecked(cfg, splits):
        if split == "TEST":
            _check_annotations(cfg, name, json_file)
        if comm.is_main_process():
            _check_images(cfg, split, name, json_file)


def suspicions(cfg: CfgNode, splits: Sequence[str] = ("TRAIN", "TEST")) -> list[str]:
    """What is possible in the data sets of a config, but hardly meant.

    Args:
        cfg, splits: as for :func:`check_files_exist`, which has passed.

    Returns:
        Warnings.
    """
    texts = {}
    for _, name, json_file in _unchecked(cfg, splits):
        suspicion = read_summary(json_file).suspicion
        if suspicion:
            texts[name] = f"Data set '{name}', {json_file}: {suspicion}."
    return list(texts.values())


def _unchecked(cfg: CfgNode, splits: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Split, name and JSON of data sets that nobody has looked at before.

    Those that Detectron2 knows by name, and prepared ones, have their classes.
    """
    for split in splits:
        for name in cfg.DATASETS[split]:
            metadata = MetadataCatalog.get(name)
            json_file = metadata.get("json_file")
            is_local = json_file is not None and "://" not in str(json_file)
            if is_local and not metadata.get("thing_classes"):
                yield split, name, json_file


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


def _check_annotations(cfg: CfgNode, name: str, json_file: str) -> None:
    metadata = MetadataCatalog.get(name)
    if metadata.get("evaluator_type") != "coco":
        return
    summary = read_summary(json_file)
    for key, count in summary.missing:
        raise ValueError(
            f"Data set '{name}' cannot be evaluated, because '{key}' is missing in {count} of "
            f"the annotations in {json_file}, and COCO's evaluation reads it: add it, or leave the "
            "set out of DATASETS.TEST."
        )
    unreadable = dict(summary.unreadable)
    if "bbox" in unreadable:
        raise ValueError(unreadable["bbox"])
    if (cfg.EVALUATION.PROTOCOL or metadata.get("protocol")) in _BOXES_ALONE:
        return
    for task, key in (("segm", "MASK_ON"), ("keypoints", "KEYPOINT_ON")):
        if cfg.MODEL[key] and task in unreadable:
            raise ValueError(
                f"Data set '{name}' cannot be evaluated with MODEL.{key}, because "
                f"{unreadable[task]}: add them, leave these objects or the set out of "
                f"DATASETS.TEST, or set MODEL.{key} to False."
            )


def _check_images(cfg: CfgNode, split: str, name: str, json_file: str) -> None:
    image_root = MetadataCatalog.get(name).get("image_root")
    if image_root is None or "://" in str(image_root):
        return
    images = read_summary(json_file).images
    if split == "TRAIN" and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        images = tuple(image for image in images if image.has_object)
    check_images(name, images, image_root, image_sizes(cfg, split))
