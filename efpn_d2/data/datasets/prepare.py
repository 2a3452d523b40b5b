"""From a data set as it was read to the files that it is used by."""

from typing import Any

from efpn_d2.data.datasets.files import write_json
from efpn_d2.data.datasets.mismatch import likely_cause
from efpn_d2.data.datasets.prepared import PreparedFiles, write_prepared
from efpn_d2.data.datasets.source import RawDataset
from efpn_d2.data.datasets.validation import Report, clean_coco, counted


class ProblemsFoundError(ValueError):
    """A data set has problems, and was to be written only without any."""


class NothingLeftError(ProblemsFoundError):
    """Nothing of a data set matches, or too little is left to replace what was there before."""


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
        NothingLeftError: no image could be used, or no annotation is left, either because none
            belongs to an image and a class, or in place of a set of this name that is there
            already; nothing is written.
        ProblemsFoundError: ``strict``, and there is a problem.
        ValueError: the data set cannot be used at all.
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


def _check_something_left(
    raw: RawDataset, coco: dict[str, Any], report: Report, files: PreparedFiles
) -> None:
    lost = [part for part in ("images", "annotations") if report.read[part] and not coco[part]]
    if not lost:
        return
    unknown = sum(f.kind in ("unknown_image", "unknown_category") for f in report.problems)
    unmatched = unknown + sum(report.dropped_with_image.values()) == report.read["annotations"]
    if lost == ["annotations"] and not unmatched and not files.description.is_file():
        return  # bad records one by one, each in the report
    report.count(coco)
    cause = likely_cause(raw.coco, raw.image_root, coco["images"], report)
    raise NothingLeftError(
        f"Of {report.name}, none of the {report.read[lost[0]]} {lost[0]} could be used: {cause}; "
        "nothing was written, so what was prepared by this name before is still there."
    )
