"""Check a dataset and write it with its report."""

from typing import Any

from efpn_d2.data.converters.mismatch import likely_cause
from efpn_d2.data.converters.source import RawDataset
from efpn_d2.data.datasets.prepared import PreparedFiles, write_prepared
from efpn_d2.data.validation import ValidationReport, clean_coco, counted
from efpn_d2.utils.files import write_json


class ProblemsFoundError(ValueError):
    """Raised if a dataset has problems, but was to be written only without any."""


class NothingLeftError(ProblemsFoundError):
    """Raised if nothing of a dataset matches, or too little is left to replace the existing one."""


def prepare(
    raw: RawDataset,
    files: PreparedFiles,
    report: ValidationReport,
    *,
    strict: bool = False,
    decode: bool = False,
    workers: int = 4,
    progress: bool = True,
) -> None:
    """Check a dataset and write it with its report; the images stay in place.

    Args:
        raw: the dataset.
        files: where to write it.
        report: findings of the reader; those of the checks are added.
        strict: write only the report if there is any problem.
        decode: see :func:`clean_coco`.
        workers: see :func:`clean_coco`.
        progress: see :func:`clean_coco`.

    Raises:
        NothingLeftError: if no image is usable, or no annotation is left and either none belongs to
            an image and a class or a dataset of this name already exists; nothing is written.
        ProblemsFoundError: if ``strict`` and there is a problem.
        ValueError: if the dataset cannot be used at all.
    """
    coco = clean_coco(
        raw.coco, raw.image_root, report, decode=decode, workers=workers, progress=progress
    )
    _check_something_left(raw, coco, report, files)
    if raw.finish is not None:
        coco["annotations"] = raw.finish(coco["annotations"])
    report.count(coco)
    if strict and report.problems:
        write_json(files.report, report.as_dict(), indent=1)
        raise ProblemsFoundError(
            f"{report.name} has {counted(len(report.problems), 'problem')}, listed in "
            f"{files.report}: correct the source, or run without --strict to use the dataset "
            "without the dropped records."
        )
    write_prepared(
        files,
        coco,
        report,
        image_root=raw.image_root,
        protocol=raw.protocol,
        evaluated_classes=raw.evaluated_classes,
    )


def _check_something_left(
    raw: RawDataset, coco: dict[str, Any], report: ValidationReport, files: PreparedFiles
) -> None:
    lost = [part for part in ("images", "annotations") if report.read[part] and not coco[part]]
    if not lost:
        return
    unknown = sum(f.kind in ("unknown_image", "unknown_category") for f in report.problems)
    unmatched = unknown + sum(report.dropped_with_image.values()) == report.read["annotations"]
    if lost == ["annotations"] and not unmatched and not files.description.is_file():
        return  # bad records were dropped one by one, each in the report
    report.count(coco)
    cause = likely_cause(raw.coco, raw.image_root, coco["images"], report)
    raise NothingLeftError(
        f"None of the {report.read[lost[0]]} {lost[0]} of {report.name} could be used: {cause}; "
        "nothing was written, so an existing dataset of this name is unchanged."
    )
