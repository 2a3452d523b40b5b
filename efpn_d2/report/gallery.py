"""Data of the gallery: properties by which images are filtered, and files with their boxes."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from efpn_d2.error_analysis.summary import NO_BIN, bin_index
from efpn_d2.error_analysis.verdicts import ERROR_KINDS, Kind, RunAnalysis
from efpn_d2.evaluation.matching import UNMATCHED
from efpn_d2.report.rules import ReportRules
from efpn_d2.report.run import Run

ONLY_HERE = len(Kind)  # after the numbers of the kinds
CHUNK = 50  # images per file of boxes
ItemCounter = Counter[tuple[int, ...]]  # by kind, size bin and class
_MOST_DETECTIONS = 100  # limit of the detections that are written per image


def script_json(value: Any) -> str:
    """Convert to JSON that is safe inside a script element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def image_counters(run: Run, rules: ReportRules, other: Run | None = None) -> list[ItemCounter]:
    """Count each (kind, size bin, class) of each image at the run's threshold.

    With another run to compare, the kind ``ONLY_HERE`` counts objects that it did not find.
    """
    analysis = run.analysis
    truth, detections = analysis.truth, analysis.detections
    counters: list[ItemCounter] = [Counter() for _ in truth.images]
    counted = (detections.scores >= run.threshold) & (analysis.kind != Kind.IGNORED)
    missed = analysis.missed(run.threshold)
    sizes = bin_index(analysis.sizes, rules.bounds)
    object_sizes = bin_index(truth.sizes, rules.bounds)
    parts = [
        (detections.image, analysis.kind, sizes, detections.classes, counted),
        (truth.image, np.full(len(missed), Kind.MISSED), object_sizes, truth.classes, missed),
    ]
    if other is not None:
        only = analysis.found(run.threshold) & ~other.analysis.found(other.threshold)
        kind = np.full(len(only), ONLY_HERE)
        parts.append((truth.image, kind, object_sizes, truth.classes, only))
    for image, kind, size, class_index, chosen in parts:
        chosen = chosen & (size != NO_BIN)
        columns = (values[chosen].tolist() for values in (image, kind, size, class_index))
        for i, *key in zip(*columns, strict=True):
            counters[i][tuple(key)] += 1
    return counters


def changes(runs: list[Run], num_images: int) -> np.ndarray:
    """Return (I, 2) int: objects per image found only by the second run, and only by the first."""
    found = [run.analysis.found(run.threshold) for run in runs]
    truth = runs[0].analysis.truth
    gained = np.bincount(truth.image[found[1] & ~found[0]], minlength=num_images)
    lost = np.bincount(truth.image[found[0] & ~found[1]], minlength=num_images)
    return np.stack([gained, lost], axis=1)


def gallery_index(runs: list[Run], rules: ReportRules) -> list[dict[str, Any]]:
    """Build an entry per image, in order of relevance, with the data for filters and sorting.

    Images of one run are sorted by number of errors; images of two runs by number of objects that
    only one of them found, then by the errors of both.
    """
    images = runs[0].analysis.truth.images
    others = runs[::-1] if len(runs) > 1 else [None]
    counters = [image_counters(run, rules, other) for run, other in zip(runs, others, strict=True)]
    errors = np.array(
        [[_errors(counter) for counter in of_run] for of_run in counters], dtype=int
    ).reshape(len(runs), len(images))
    keys = [-errors.sum(axis=0)]
    entries: list[dict[str, Any]] = [{} for _ in images]
    if len(runs) > 1:
        change = changes(runs, len(images))
        keys.append(-change.sum(axis=1))
        for entry, (gained, lost) in zip(entries, change.tolist(), strict=True):
            entry["change"] = [gained, lost]
    for i, (entry, image) in enumerate(zip(entries, images, strict=True)):
        entry["image"] = i
        entry["name"] = str(image["file_name"])
        entry["size"] = [int(image["width"]), int(image["height"])]
        entry["items"] = [
            [number for key, count in of_run[i].items() for number in (*key, count)]
            for of_run in counters
        ]
    return [entries[i] for i in np.lexsort(keys)]


def _errors(counter: ItemCounter) -> int:
    return sum(count for (kind, _, _), count in counter.items() if kind in ERROR_KINDS)


def write_boxes(runs: list[Run], index: list[dict[str, Any]], folder: Path) -> int:
    """Write the boxes of all images in the order of the index; return the number of bytes.

    File n holds the images from n * CHUNK on, as a call of ``reportBoxes``, since a page from the
    local disk can load scripts only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truth = runs[0].analysis.truth
    object_bounds = truth.bounds()
    bounds = [run.analysis.detections.bounds(len(truth.images)) for run in runs]
    total = 0
    for start in range(0, len(index), CHUNK):
        images = []
        for entry in index[start : start + CHUNK]:
            i = entry["image"]
            objects = slice(*object_bounds[i : i + 2])
            detections = [
                _detections(run.analysis, slice(*b[i : i + 2]), objects.start)
                for run, b in zip(runs, bounds, strict=True)
            ]
            images.append({"objects": _objects(runs[0].analysis, objects), "runs": detections})
        text = f"reportBoxes({start // CHUNK},{script_json(images)});\n"
        (folder / f"{start // CHUNK}.js").write_text(text, encoding="utf-8")
        total += len(text)
    return total


def _objects(analysis: RunAnalysis, objects: slice) -> list[list[float]]:
    """Return [x0, y0, x1, y1, class, size, crowd] of each object."""
    truth = analysis.truth
    columns = (truth.classes[objects], truth.sizes[objects].round(1), truth.crowd[objects])
    columns = tuple(column.tolist() for column in columns)
    boxes = truth.boxes[objects].round(2).tolist()
    return [[*box, k, s, int(c)] for box, k, s, c in zip(boxes, *columns, strict=True)]


def _detections(analysis: RunAnalysis, dets: slice, first_object: int) -> list[list[float]]:
    """Return [x0, y0, x1, y1, class, score, kind, object or -1, IoU], best score first."""
    dets = slice(dets.start, min(dets.stop, dets.start + _MOST_DETECTIONS))
    partner = analysis.partner[dets]
    columns = (
        analysis.detections.classes[dets],
        analysis.detections.scores[dets].round(4),
        analysis.kind[dets],
        np.where(partner == UNMATCHED, -1, partner - first_object),
        analysis.partner_iou[dets].round(3),
    )
    boxes = analysis.detections.boxes[dets].round(2).tolist()
    rows = zip(boxes, *(column.tolist() for column in columns), strict=True)
    return [[*box, *rest] for box, *rest in rows]
