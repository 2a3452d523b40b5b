"""Names of classes that tell them apart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def unique_names(categories: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of categories; one that several have is followed by the id.

    So "car" of the ids 1 and 7 becomes "car (1)" and "car (7)", and neither replaces the other in
    results by name.

    Args:
        categories: of a COCO JSON, each with ``id`` and ``name``.

    Returns:
        The names in the order of ``categories``.
    """
    counts = Counter(category["name"] for category in categories)
    return [c["name"] if counts[c["name"]] == 1 else f"{c['name']} ({c['id']})" for c in categories]
