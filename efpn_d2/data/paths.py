"""Paths of datasets."""

import os
from pathlib import Path


def dataset_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of all datasets: ``root``, ``$DETECTRON2_DATASETS`` or ``datasets``."""
    if root is None:
        root = os.environ.get("DETECTRON2_DATASETS") or "datasets"
    return Path(root).expanduser()


def path_candidates(path: str) -> list[str]:
    """Return the absolute paths that a path from a config may refer to, best first.

    A relative path is resolved in the dataset root, then in the working directory. An address such
    as ``s3://...`` is left to Detectron2's PathManager.
    """
    if "://" in path:
        return [path]
    path = os.path.expanduser(path)
    places = [dataset_root() / path, Path(path)]
    return list(dict.fromkeys(os.path.abspath(place) for place in places))
