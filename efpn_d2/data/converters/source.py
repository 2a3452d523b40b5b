"""The result of all dataset readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["RawDataset"]


@dataclass(frozen=True)
class RawDataset:
    """An unchecked dataset in COCO format.

    Attributes:
        coco: the lists images, annotations and categories. Extra entries: an image or annotation
            may have ``_source``, the file and id to report; an annotation ``_problem``, the kind,
            field and message of what makes it unusable; an image ``_finding``, the arguments of
            :meth:`Report.add` if the image is kept.
        image_root: folder to which the file names are relative.
        protocol: usual evaluation protocol; one of ``prepared.PROTOCOLS``.
        evaluated_classes: names of the evaluated classes; None: all.
        finish: maps checked annotations to those that are written; None: no change.
    """

    coco: dict[str, Any]
    image_root: Path
    protocol: str = "coco"
    evaluated_classes: Sequence[str] | None = None
    finish: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None
