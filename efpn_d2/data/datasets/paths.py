"""Where data sets are looked for."""

import os
from pathlib import Path


def dataset_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all data sets: ``root``, else ``$DETECTRON2_DATASETS``, else ``datasets``."""
    if root is None:
        root = os.environ.get("DETECTRON2_DATASETS") or "datasets"
    return Path(root).expanduser()


def path_candidates(path: str) -> list[str]:
    """The places where a path from a config may be, best first, as absolute paths.

    A relative path is looked up in the data set folder, then in the working directory. An address
    such as ``s3://...`` is left to Detectron2's PathManager.
    """
    if "://" in path:
        return [path]
    path = os.path.expanduser(path)
    places = [dataset_root() / path, Path(path)]
    return list(dict.fromkeys(os.path.abspath(place) for place in places))
