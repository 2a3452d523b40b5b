"""Validation of categories."""

from collections import Counter
from typing import Any

from efpn_d2.data.coco.names import unique_names
from efpn_d2.data.validation.report import ValidationReport


def check_categories(categories: list[Any], report: ValidationReport) -> list[dict[str, Any]]:
    """Check the categories; their ids are kept, including gaps, which Detectron2 removes.

    The id is appended to names that occur more than once.

    Raises:
        ValueError: if there are no categories, a category lacks its id or name, or two have the
            same id, so that the class of an annotation is ambiguous.
    """
    if not categories:
        raise ValueError(f"'{report.source}' has no categories: name at least one class.")
    for category in categories:
        valid = isinstance(category, dict) and isinstance(category.get("name"), str)
        if not valid or type(category.get("id")) is not int:
            raise ValueError(
                f"'{report.source}' has the category {category!r}: each needs an integer id and a "
                "name."
            )
    ids = Counter(category["id"] for category in categories)
    repeated = [id for id, number in ids.items() if number > 1]
    if repeated:
        names = [c["name"] for c in categories if c["id"] == repeated[0]]
        raise ValueError(
            f"'{report.source}' has {len(names)} categories with the id {repeated[0]}: {names}; "
            "give each category its own id."
        )
    for name, number in Counter(category["name"] for category in categories).items():
        if number > 1:
            same = [category["id"] for category in categories if category["name"] == name]
            message = f"the name '{name}' is used for the ids {same}, which are now appended to it"
            report.add(
                "duplicate_category_name",
                message,
                file=report.source,
                id=same[1],
                field="name",
                action="corrected",
            )
    _note_gaps(sorted(ids), report)
    names = unique_names(categories)
    return [dict(category, name=name) for category, name in zip(categories, names, strict=True)]


def _note_gaps(ids: list[int], report: ValidationReport) -> None:
    if ids == list(range(1, len(ids) + 1)):
        return
    missing = sorted(set(range(1, ids[-1] + 1)) - set(ids))
    message = (
        f"the {len(ids)} ids go from {ids[0]} to {ids[-1]}"
        + (f", without {missing[:10]}" + (" ..." if len(missing) > 10 else "") if missing else "")
        + "; they are kept, and Detectron2 maps them to 0, 1, 2, ... in order"
    )
    report.add("category_gap", message, file=report.source, field="id")
