"""Why nothing of a data set is left after its validation: what does not match what."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from efpn_d2.data.datasets.validation import KINDS, Report

# Where the files are is looked for with the first names and in so many files.
_NAMES, _FILES = 20, 100_000


def likely_cause(
    content: dict[str, Any], image_root: Path, kept: Sequence[dict[str, Any]], report: Report
) -> str:
    """What most probably keeps a data set's parts from finding each other.

    Args:
        content: the data set in COCO's format, as it was read.
        image_root: folder that the file names of its images start from.
        kept: the images that are left.
        report: of the validation.

    Returns:
        A clause with what was found and what to do.
    """
    kinds = Counter(finding.kind for finding in report.problems)
    if kinds["missing_image"] and (not kept or report.dropped_with_image):
        missing = [f.file for f in report.problems if f.kind == "missing_image"]
        return _cause_of_missing(missing, image_root)
    if not kinds:
        return "nothing says why"
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
    there = f"no image is there as {image_root / names[0]}"
    if all("\\" in name for name in names):
        return f"{there}: its name has a backslash where it needs /"
    files = list(islice(_files_below(image_root), _FILES))
    by_name = {path.name: path for path in files}
    by_lower = {path.as_posix().lower(): path for path in files}
    by_stem = {path.stem.lower(): path for path in files}
    for name in names[:_NAMES]:
        listed = PurePosixPath(name)
        if (image_root.parent / name).is_file():
            return f"{there}, but it is in {image_root.parent}: give that folder for the images"
        if name.lower() in by_lower:
            found = by_lower[name.lower()]
            return f"{there}, but as {found}: make upper and lower case the same in both"
        if listed.name in by_name:
            found = by_name[listed.name]
            return (
                f"{there}: the JSON has '{name}', and the file is {found} below the folder of the "
                "images; make the beginnings agree, by the folder that is given or in the JSON"
            )
        if listed.stem.lower() in by_stem:
            found = by_stem[listed.stem.lower()]
            return f"{there}, but there is {found}: make the endings of the names agree"
    return f"{there}, nor is any file of such a name below that folder: give the right one"


def _files_below(folder: Path) -> Iterable[Path]:
    """Files by their paths from ``folder``."""
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
        return f"{text}: make both numbers, or both texts"
    return f"{text}: make them agree"


def _ids(values: Iterable[Any]) -> list[int | str]:
    return [value for value in values if type(value) in (int, str)]
