"""Check datasets at startup, so that a training does not fail late."""

from collections.abc import Iterator, Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from efpn_d2.data.coco.json_summary import read_summary
from efpn_d2.data.datasets.registration import SYNTHETIC_PREFIX
from efpn_d2.data.validation.image_checks import check_images, image_sizes

_USES = {"TRAIN": "when the training starts", "TEST": "during evaluation"}

# Protocols that evaluate neither masks nor keypoints.
_BOXES_ALONE = ("tt100k", "visdrone")


def check_files_exist(cfg: CfgNode, splits: Sequence[str] = ("TRAIN", "TEST")) -> None:
    """Check the files of registered datasets, which Detectron2 opens only when it needs them.

    For ``DATASETS.TEST`` that is after the training. Addresses such as ``s3://...`` and datasets
    without a JSON are skipped. The content of a JSON is checked if :func:`register_datasets` reads
    it, i.e. for datasets that are neither known to Detectron2 by name nor prepared; for these, the
    main process also reads the headers of the images.

    Args:
        cfg: a config passed to :func:`register_datasets`; may be frozen.
        splits: keys of ``cfg.DATASETS``; ``("TEST",)`` if nothing is trained.

    Raises:
        FileNotFoundError: if a JSON is missing.
        ValueError: if a file of ``DATASETS.TEST`` lacks fields that COCO's evaluation reads, or
            images cannot be used.
    """
    for split in splits:
        for name in cfg.DATASETS[split]:
            json_file = MetadataCatalog.get(name).get("json_file")
            if json_file is None or "://" in str(json_file):
                continue
            if not PathManager.isfile(json_file):
                raise FileNotFoundError(
                    f"DATASETS.{split} names '{name}', but its file {json_file} does not exist, "
                    f"which would have failed only {_USES[split]}: {_ways_out(name, split)}."
                )
    for split, name, json_file in _unchecked(cfg, splits):
        if split == "TEST":
            _check_annotations(cfg, name, json_file)
        if comm.is_main_process():
            _check_images(cfg, split, name, json_file)


def suspicions(cfg: CfgNode, splits: Sequence[str] = ("TRAIN", "TEST")) -> list[str]:
    """Return warnings about datasets that are valid, but probably not as intended.

    Args:
        cfg: a config that has passed :func:`check_files_exist`.
        splits: keys of ``cfg.DATASETS``.
    """
    texts = {}
    for _, name, json_file in _unchecked(cfg, splits):
        suspicion = read_summary(json_file).suspicion
        if suspicion:
            texts[name] = f"Dataset '{name}', {json_file}: {suspicion}."
    return list(texts.values())


def _unchecked(cfg: CfgNode, splits: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield split, name and JSON of datasets that have not been checked elsewhere.

    Datasets known to Detectron2 by name, and prepared ones, have been checked.
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
    ways.append("set DETECTRON2_DATASETS to the folder that holds the datasets")
    if split == "TEST":
        ways.append('set DATASETS.TEST "()" to train without evaluation')
    return ", or ".join(ways)


def _check_annotations(cfg: CfgNode, name: str, json_file: str) -> None:
    metadata = MetadataCatalog.get(name)
    if metadata.get("evaluator_type") != "coco":
        return
    summary = read_summary(json_file)
    for key, count in summary.missing:
        raise ValueError(
            f"Dataset '{name}' cannot be evaluated, because '{key}' is missing in {count} of the "
            f"annotations in {json_file}, and COCO's evaluation reads it: add it, or remove the "
            "dataset from DATASETS.TEST."
        )
    unreadable = dict(summary.unreadable)
    if "bbox" in unreadable:
        raise ValueError(unreadable["bbox"])
    if (cfg.EVALUATION.PROTOCOL or metadata.get("protocol")) in _BOXES_ALONE:
        return
    for task, key in (("segm", "MASK_ON"), ("keypoints", "KEYPOINT_ON")):
        if cfg.MODEL[key] and task in unreadable:
            raise ValueError(
                f"Dataset '{name}' cannot be evaluated with MODEL.{key}, because "
                f"{unreadable[task]}: add them, remove these objects, remove the dataset from "
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
