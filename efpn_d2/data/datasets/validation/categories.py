"""Checks of a data set's classes."""

from collections import Counter
from typing import Any

from efpn_d2.data.datasets.names import unique_names
from efpn_d2.data.datasets.validation.report import Report


def check_categories(categories: list[Any], report: Report) -> list[dict[str, Any]]:
    """Check the classes; their ids stay as they are, also with gaps, which Detectron2 closes.

    A name that several have is followed by the id.

    Raises:
        ValueError: there is none, a class lacks id or name, or two have the same id: then no
            annotation says which class it is of.
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
            "give each class an id of its own."
        )
    for name, number in Counter(category["name"] for category in categories).items():
        if number > 1:
            same = [category["id"] for category in categories if category["name"] == name]
            message = f"the name '{name}' is used for the ids {same}, which now follow it"
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


def _note_gaps(ids: list[int], report: Report) -> None:
    if ids == list(range(1, len(ids) + 1)):
        return
    missing = sorted(set(range(1, ids[-1] + 1)) - set(ids))
    message = (
        f"the {len(ids)} ids go from {ids[0]} to {ids[-1]}"
        + (f", without {missing[:10]}" + (" ..." if len(missing) > 10 else "") if missing else "")
        + "; they stay, and Detectron2 maps them to 0, 1, 2, ... in their order"
    )
    report.add("category_gap", message, file=report.source, field="id")
