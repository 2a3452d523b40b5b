"""A Markdown table of the record of benchmarks/assignment.py."""

from typing import Any

__all__ = ["render_assignment"]


def render_assignment(record: dict[str, Any]) -> str:
    """Positive anchors per object, by the object's size in pixels."""
    rows = record["rows"]
    heads = ["", "similarity", *(_size(one["size"]) for one in rows[0]["bins"])]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        counts = [f"{one['positives_per_object']:.1f}" for one in row["bins"]]
        lines.append(f"| {' | '.join([row['detector'], row['similarity'], *counts])} |")
    how = f"{record['images']} images of {record['dataset']}, commit {record['commit'][:7]}."
    return "\n".join([*lines, "", how])


def _size(edges: list[float | None]) -> str:
    low, high = edges
    return f"{low:g} px and more" if high is None else f"{low:g} to {high:g} px"
