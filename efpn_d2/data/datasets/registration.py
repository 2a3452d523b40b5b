"""Registration of data sets with Detectron2's catalogs, on request."""

import logging
import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from efpn_d2.data.datasets.categories import check_num_classes
from efpn_d2.data.datasets.json_summary import read_summary
from efpn_d2.data.datasets.keypoints import check_keypoints, keypoint_metadata
from efpn_d2.data.datasets.loading import load_coco
from efpn_d2.data.datasets.paths import path_candidates
from efpn_d2.data.datasets.prepared import protocol_metadata, register_prepared
from efpn_d2.data.datasets.synthetic import CLASS_NAMES, synthetic_paths
from efpn_d2.data.datasets.synthetic.config import SCALES

logger = logging.getLogger(__name__)

SYNTHETIC_SPLITS = ("train", "val")
SYNTHETIC_PREFIX = "synthetic_signs_"


def register_synthetic(root: str | None = None) -> None:
    """Register ``synthetic_signs_native{1x,2x}_{train,val}``; the files may be made later.

    Called again it changes nothing, unless the folder is another one by then: the sets move there.

    Args:
        root: folder of all data sets; None: ``$DETECTRON2_DATASETS`` as it is now, or ``datasets``.
    """
    for variant in SCALES:
        for split in SYNTHETIC_SPLITS:
            name = f"{SYNTHETIC_PREFIX}{variant}_{split}"
            json_file, image_root = map(os.path.abspath, synthetic_paths(variant, split, root))
            if name in DatasetCatalog.list():
                if MetadataCatalog.get(name).json_file == json_file:
                    continue
                logger.info("%s is now looked for at %s", name, json_file)
                DatasetCatalog.remove(name)
                MetadataCatalog.remove(name)
            DatasetCatalog.register(name, partial(_load_synthetic, name, json_file, image_root))
            MetadataCatalog.get(name).set(
                json_file=json_file,
                image_root=image_root,
                evaluator_type="coco",
                protocol="coco",
                thing_classes=list(CLASS_NAMES),
            )


def _load_synthetic(name: str, json_file: str, image_root: str) -> list[dict[str, Any]]:
    if not os.path.isfile(json_file):
        raise FileNotFoundError(
            f"Data set '{name}' has not been generated at {json_file}: run `python "
            "tools/make_synthetic.py`, or point DETECTRON2_DATASETS to the folder it wrote to."
        )
    return load_coco(json_file, image_root, name)


def register_coco_sets(entries: Iterable[Sequence[str]]) -> None:
    """Register COCO-format data sets: the config node ``COCO_DATA.REGISTER``.

    Args:
        entries: each [name, path of the COCO JSON, image folder]. Relative paths are looked up in
            ``$DETECTRON2_DATASETS`` (default ``datasets``), then in the working directory.

    Raises:
        ValueError: an entry is no such triple, or its name already stands for other files.
        FileNotFoundError: a path that is not in any of these places.
    """
    for entry in entries:
        valid = not isinstance(entry, str) and len(entry) == 3
        if not valid or not all(isinstance(part, str) and part for part in entry):
            raise ValueError(
                "COCO_DATA.REGISTER must be a list of [name, path of the COCO JSON, image folder], "
                f"but has the entry {entry!r}."
            )
        name, json_file, image_root = entry
        _register_coco_set(name, _existing(json_file, name), _existing(image_root, name))


def _register_coco_set(name: str, json_file: str, image_root: str) -> None:
    if name not in DatasetCatalog.list():
        DatasetCatalog.register(name, partial(load_coco, json_file, image_root, name))
        MetadataCatalog.get(name).set(
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
            **{**_keypoints_of(json_file), **protocol_metadata(json_file)},
        )
        return
    metadata = MetadataCatalog.get(name)
    known = (metadata.get("json_file"), metadata.get("image_root"))
    if known != (json_file, image_root):
        raise ValueError(
            f"COCO_DATA.REGISTER cannot register '{name}' with {(json_file, image_root)}, because "
            f"a data set of that name already uses {known}: choose another name."
        )


def _keypoints_of(json_file: str) -> dict[str, Any]:
    try:
        return keypoint_metadata(read_summary(json_file).keypoint_names)
    except (OSError, ValueError):
        return {}  # it is refused where it is used


def _existing(path: str, name: str) -> str:
    candidates = path_candidates(path)
    for candidate in candidates:
        if PathManager.exists(candidate):
            return candidate
    raise FileNotFoundError(
        f"COCO_DATA.REGISTER: '{path}' of data set '{name}' does not exist; tried "
        f"{' and '.join(candidates)}: correct the path or set DETECTRON2_DATASETS."
    )


def register_datasets(cfg: CfgNode, splits: Sequence[str] = ("TRAIN", "TEST")) -> None:
    """Register what ``cfg`` needs, and check that its data sets and class count fit together.

    Registers ``COCO_DATA.REGISTER``, and of the names in ``DATASETS.TRAIN`` and ``DATASETS.TEST``
    the synthetic sets and those that ``tools/prepare_dataset.py`` wrote below
    ``$DETECTRON2_DATASETS``. The metadata's ``protocol`` says how results are usually measured: see
    :data:`.prepared.PROTOCOLS`. The number of classes is checked for every data set whose COCO JSON
    is on disk. Changes nothing in ``cfg``; may be called again.

    Args:
        cfg: a complete config; may be frozen.
        splits: keys of ``cfg.DATASETS``; ``("TEST",)`` where nothing is to be trained.

    Raises:
        ValueError: a data set is not registered, or has not as many classes or, if
            ``MODEL.KEYPOINT_ON``, keypoints as the model.
        FileNotFoundError: see :func:`register_coco_sets` and :func:`register_prepared`.
    """
    if "COCO_DATA" not in cfg:
        raise ValueError("The config has no COCO_DATA node: call add_efpn_config(cfg) first.")
    register_coco_sets(cfg.COCO_DATA.REGISTER)
    names = {key: tuple(cfg.DATASETS[key]) for key in splits}
    every = [name for members in names.values() for name in members]
    if any(name.startswith(SYNTHETIC_PREFIX) for name in every):
        register_synthetic()
    for name in every:
        register_prepared(name)
    for key, members in names.items():
        for name in members:
            if name not in DatasetCatalog.list():
                raise ValueError(
                    f"DATASETS.{key} names '{name}', which is not registered: add "
                    f"['{name}', path of the COCO JSON, image folder] to COCO_DATA.REGISTER, give "
                    f"--{key.lower()}-json and --{key.lower()}-images, prepare it by "
                    "tools/prepare_dataset.py, or use one of "
                    f"{SYNTHETIC_PREFIX}native{{1x,2x}}_{{train,val}} or Detectron2's own names."
                )
            check_num_classes(cfg, name)
            check_keypoints(cfg, name, evaluated=key == "TEST")
