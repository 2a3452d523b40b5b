"""What the readers of all data sets return."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RawDataset:
    """A data set in COCO's format that is not yet checked.

    Attributes:
        coco: with the lists images, annotations and categories. An image or annotation may have an
            entry ``_source``, the file and the id that it is to be reported with; an annotation
            ``_problem``, the kind, field and message of what makes it unusable; an image
            ``_finding``, the arguments of :meth:`Report.add` for what is said if the image stays.
        image_root: folder that the file names of the images start from.
        protocol: how results on it are usually measured; one of ``prepared.PROTOCOLS``.
        evaluated_classes: names of the classes that are evaluated; None: all.
        finish: from checked annotations to those that are written; None: the same.
    """

    coco: dict[str, Any]
    image_root: Path
    protocol: str = "coco"
    evaluated_classes: Sequence[str] | None = None
    finish: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None
