"""Interface of the converters."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from efpn_d2.data.validation import ValidationReport


@dataclass(frozen=True)
class RawDataset:
    """An unchecked dataset in COCO format.

    Attributes:
        coco: the lists images, annotations and categories. Extra entries: an image or annotation
            may have ``_source``, the file and id to report; an annotation ``_problem``, the kind,
            field and message of what makes it unusable; an image ``_finding``, the arguments of
            :meth:`ValidationReport.add` if the image is kept.
        image_root: folder to which the file names are relative.
        protocol: usual evaluation protocol; converters set their own.
        evaluated_classes: names of the evaluated classes; None: all.
        finish: maps checked annotations to those that are written; None: no change.
    """

    coco: dict[str, Any]
    image_root: Path
    protocol: str = "coco"
    evaluated_classes: Sequence[str] | None = None
    finish: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None


# Name of a dataset, and the function that reads it and adds its findings to the report.
NamedReader = tuple[str, Callable[[ValidationReport], RawDataset]]


@dataclass(frozen=True)
class Option:
    """An option of a single converter, ``--<name>`` on the command line."""

    name: str
    help: str
    choices: Sequence[str] | None = None
    default: Any = None
    type: Callable[[str], Any] = str


@dataclass(frozen=True)
class Selection:
    """Selection of the datasets of a source.

    Attributes:
        splits: names of splits; None: all that exist.
        options: values of the converter's own options by name.
    """

    splits: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Converter:
    """A format of datasets.

    Attributes:
        name: name of the format in commands.
        description: description of the dataset for users.
        recognises: checks whether a folder (or file) is laid out in this format.
        find: yields the datasets of a source by name, each with the function that reads it in COCO
            format; may raise a ``ValueError`` or an ``OSError`` with one sentence.
        protocol: usual evaluation protocol, a value of ``EVALUATION.PROTOCOL``.
        options: options of this converter only.
    """

    name: str
    description: str
    recognises: Callable[[Path], bool]
    find: Callable[[Path, Selection], Iterable[NamedReader]]
    protocol: str = "coco"
    options: Sequence[Option] = ()

    def datasets(self, source: Path, selection: Selection) -> Iterator[NamedReader]:
        """Yield the results of ``find``, with the converter's protocol.

        Raises:
            ValueError: see ``find``.
            OSError: see ``find``.
        """
        for name, read in self.find(source, selection):
            yield name, partial(self._read, read)

    def _read(
        self, read: Callable[[ValidationReport], RawDataset], report: ValidationReport
    ) -> RawDataset:
        return replace(read(report), protocol=self.protocol)


def choose_splits(
    wanted: Sequence[str] | None, there: Sequence[str], known: Sequence[str], source: Path
) -> Sequence[str]:
    """Return the splits to convert.

    Args:
        wanted: selected splits; None: all that exist.
        there: splits that the source has.
        known: splits of the dataset.
        source: path of the source, for messages.

    Raises:
        ValueError: if a selected split is unknown.
        FileNotFoundError: if no split is selected and none exists.
    """
    for split in wanted or ():
        if split not in known:
            raise ValueError(f"--splits has '{split}': choose from {', '.join(known) or 'none'}.")
    if not wanted and not there:
        splits = f"the splits {', '.join(known)}" if known else "annotations/instances_*.json"
        raise FileNotFoundError(f"--source '{source}' has none of {splits}.")
    return wanted or there
