"""A COCO-format data set as Detectron2 can load it, with a report of what was changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efpn_d2.data.datasets.box_format import suspect_boxes
from efpn_d2.data.datasets.validation.annotations import AnnotationChecks, is_json
from efpn_d2.data.datasets.validation.categories import check_categories
from efpn_d2.data.datasets.validation.images import check_images
from efpn_d2.data.datasets.validation.report import Report


def clean_coco(
    content: Any,
    image_root: Path,
    report: Report,
    *,
    decode: bool = False,
    workers: int = 4,
    progress: bool = True,
) -> dict[str, Any]:
    """Check a COCO-format data set, correct or drop what is wrong, and report all of it.

    Of the result, Detectron2's loader takes every image and annotation. Fields that COCO does not
    know stay. Instead of ``ignore``, which the loader refuses, there is ``iscrowd``.

    Args:
        content: the parsed JSON, with the further entries that :class:`.source.RawDataset` names.
        image_root: folder that the file names start from; its files are inspected.
        report: findings are added to it.
        decode, workers: see :func:`.image_files.inspect_images`.
        progress: show a bar with the time left.

    Returns:
        A COCO-format data set with finite numbers only.

    Raises:
        ValueError: ``content`` is no COCO-format data set, or its categories cannot be told apart.
    """
    _check_structure(content, report.source)
    report.read = {key: len(content[key]) for key in ("images", "annotations")}
    categories = check_categories(content["categories"], report)
    images = check_images(
        content["images"],
        image_root,
        report,
        decode=decode,
        workers=workers,
        progress=report.name if progress else "",
    )
    suspicion = suspect_boxes(content["annotations"], images.sizes)
    if suspicion is not None:
        report.add(suspicion.kind, suspicion.message, file=report.source, field="bbox")
    checks = AnnotationChecks(images, {category["id"] for category in categories}, report)
    annotations = checks.check(content["annotations"])
    result = {
        **{key: content[key] for key in ("info", "licenses") if key in content},
        "images": images.records,
        "annotations": annotations,
        "categories": categories,
    }
    _drop_what_is_not_finite(result, report)
    _note_empty_images(result, checks.dropped, report)
    return result


def _check_structure(content: Any, source: str) -> None:
    wrong = [
        key
        for key in ("images", "annotations", "categories")
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if wrong:
        raise ValueError(
            f"'{source}' is no COCO-format data set with objects: it needs the lists images, "
            f"annotations and categories, and lacks {', '.join(wrong)}."
        )


def _note_empty_images(
    coco: dict[str, Any], dropped: Mapping[int | str, Sequence[str]], report: Report
) -> None:
    with_objects = {annotation["image_id"] for annotation in coco["annotations"]}
    for image in coco["images"]:
        if image["id"] in with_objects:
            continue
        lost, message = dropped.get(image["id"], ()), "it has no annotation"
        if lost:
            names = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
            of_all = "its only annotation was"
            if len(lost) > 1:
                of_all = f"all its {len(lost)} annotations were"
            message = f"{of_all} dropped: {names}"
        report.add("empty_image", message, file=image["file_name"], id=image["id"])


def _drop_what_is_not_finite(coco: dict[str, Any], report: Report) -> None:
    """Remove NaN and infinity, which are no JSON, from what is no annotation."""
    for part in ("info", "licenses"):
        if part in coco and not is_json(coco[part]):
            coco.pop(part)
            _report_not_finite(report, report.source, None, part)
    for part in ("images", "categories"):
        for record in coco[part]:
            for field in [field for field in record if not is_json(record[field])]:
                record.pop(field)
                _report_not_finite(report, report.source, record["id"], field)


def _report_not_finite(report: Report, file: str, id: Any, field: str) -> None:
    message = "it holds NaN or infinity and was removed"
    report.add("not_finite", message, file=file, id=id, field=field, action="corrected")
