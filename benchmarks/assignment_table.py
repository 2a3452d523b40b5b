"""A Markdown table of the record of benchmarks/assignment.py."""

from typing import Any


def render_assignment(record: dict[str, Any]) -> str:
    """Positive anchors per object, and the IoU of the best one, by the object's size in pixels."""
    rows = record["rows"]
    sizes = [_size(one["size"]) for one in rows[0]["bins"]]
    heads = ["", "similarity", *sizes, *(f"best IoU, {size}" for size in sizes)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        counts = [f"{one['positives_per_object']:.1f}" for one in row["bins"]]
        fits = [f"{one['mean_best_iou']:.2f}" for one in row["bins"]]
        lines.append(f"| {' | '.join([row['detector'], row['similarity'], *counts, *fits])} |")
    how = f"{record['images']} images of {record['dataset']}, commit {record['commit'][:7]}."
    return "\n".join([*lines, "", how])


def _size(edges: list[float | None]) -> str:
    low, high = edges
    return f"{low:g} px and more" if high is None else f"{low:g} to {high:g} px"
