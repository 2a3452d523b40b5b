"""Unique class names."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def unique_names(categories: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return category names, with the id appended to names that occur more than once.

    For example, "car" with the ids 1 and 7 becomes "car (1)" and "car (7)", so that neither
    replaces the other in results by name.

    Args:
        categories: categories of a COCO JSON, each with ``id`` and ``name``.

    Returns:
        The names in the order of ``categories``.
    """
    counts = Counter(category["name"] for category in categories)
    return [c["name"] if counts[c["name"]] == 1 else f"{c['name']} ({c['id']})" for c in categories]
