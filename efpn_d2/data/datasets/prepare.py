"""From a data set as it was read to the files that it is used by."""

from __future__ import annotations

from .files import write_json
from .prepared import PreparedFiles, write_prepared
from .source import RawDataset
from .validation import Report, clean_coco, counted

__all__ = ["ProblemsFoundError", "prepare"]


class ProblemsFoundError(ValueError):
    """A data set has problems, and was to be written only without any."""


def prepare(
    raw: RawDataset,
    files: PreparedFiles,
    report: Report,
    *,
    strict: bool = False,
    decode: bool = False,
    workers: int = 4,
    progress: bool = True,
) -> None:
    """Check a data set and write it with its report; the images stay where they are.

    Args:
        raw: the data set.
        files: where to.
        report: what reading has found; what the checks find is added.
        strict: write the report alone if there is any problem.
        decode, workers, progress: see :func:`clean_coco`.

    Raises:
        ProblemsFoundError: ``strict``, and there is a problem.
        ValueError: the data set cannot be used at all.
    """
    coco = clean_coco(
        raw.coco, raw.image_root, report, decode=decode, workers=workers, progress=progress
    )
    if raw.finish is not None:
        coco["annotations"] = raw.finish(coco["annotations"])
    report.count(coco)
    if strict and report.problems:
        write_json(files.report, report.as_dict(), indent=1)
        raise ProblemsFoundError(
            f"{report.name} has {counted(len(report.problems), 'problem')}, all in {files.report}: "
            "correct the source, or run without --strict to use the data set without the records "
            "dropped there."
        )
    write_prepared(
        files,
        coco,
        report,
        image_root=raw.image_root,
        protocol=raw.protocol,
        evaluated_classes=raw.evaluated_classes,
    )
