"""Explain why nothing of a dataset is left after validation."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from efpn_d2.data.validation import KINDS, ValidationReport

# Files are searched only for the first names, and among at most this many files.
_NAMES, _FILES = 20, 100_000


def likely_cause(
    content: dict[str, Any],
    image_root: Path,
    kept: Sequence[dict[str, Any]],
    report: ValidationReport,
) -> str:
    """Find the most likely reason why the parts of a dataset do not match.

    Args:
        content: the dataset in COCO format, as it was read.
        image_root: folder to which its file names are relative.
        kept: the images that are left.
        report: report of the validation.

    Returns:
        A clause that says what was found and what to do.
    """
    kinds = Counter(finding.kind for finding in report.problems)
    if kinds["missing_image"] and (not kept or report.dropped_with_image):
        missing = [f.file for f in report.problems if f.kind == "missing_image"]
        return _cause_of_missing(missing, image_root)
    if not kinds:
        return "the reason is unknown"
    (kind, number), *_ = kinds.most_common(1)
    references = {
        "unknown_image": ("image_id", "images"),
        "unknown_category": ("category_id", "categories"),
    }
    if kind in references:
        return _cause_of_unknown(content, *references[kind])
    first = next(finding for finding in report.problems if finding.kind == kind)
    return f"there are {KINDS[kind]} ({number}; the first: {first.message})"


def _cause_of_missing(names: Sequence[str], image_root: Path) -> str:
    there = f"there is no image at {image_root / names[0]}"
    if all("\\" in name for name in names):
        return f"{there}: its name has a backslash instead of /"
    files = list(islice(_files_below(image_root), _FILES))
    by_name = {path.name: path for path in files}
    by_lower = {path.as_posix().lower(): path for path in files}
    by_stem = {path.stem.lower(): path for path in files}
    for name in names[:_NAMES]:
        listed = PurePosixPath(name)
        if (image_root.parent / name).is_file():
            return f"{there}, but it is in {image_root.parent}: use that folder for the images"
        if name.lower() in by_lower:
            found = by_lower[name.lower()]
            return f"{there}, but there is {found}: use the same upper and lower case in both"
        if listed.name in by_name:
            found = by_name[listed.name]
            return (
                f"{there}: the JSON has '{name}', and the file is {found} below the image folder; "
                "make the paths match by choosing another folder or changing the JSON"
            )
        if listed.stem.lower() in by_stem:
            found = by_stem[listed.stem.lower()]
            return f"{there}, but there is {found}: make the file extensions match"
    return f"{there}, nor any file of such a name below that folder: use the right folder"


def _files_below(folder: Path) -> Iterable[Path]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield Path(place, name).relative_to(folder)


def _cause_of_unknown(content: dict[str, Any], key: str, part: str) -> str:
    known = _ids(r.get("id") for r in content[part] if isinstance(r, dict))
    used = _ids(a.get(key) for a in content["annotations"] if isinstance(a, dict))
    ids = set(known)
    used = [value for value in used if value not in ids]
    if not used or not known:
        return f"the annotations have no {key}, or the {part} no id"
    text = f"their {key}, such as {used[0]!r}, is not the id of any of the {part}, such as "
    text += f"{known[0]!r}"
    if {str(value) for value in used} & {str(value) for value in known}:
        return f"{text}: make both numbers, or both strings"
    return f"{text}: make them match"


def _ids(values: Iterable[Any]) -> list[int | str]:
    return [value for value in values if type(value) in (int, str)]
