"""The table of benchmarks/assignment.py."""

from records import Record

from rendering.markdown import commit_of, table


def render_assignment(record: Record) -> str:
    """Positive anchors per object, and the IoU of the best one, by the object's size in pixels."""
    sizes = [_size(one["size"]) for one in record["rows"][0]["bins"]]
    heads = ["", "similarity", *sizes, *(f"best IoU, {size}" for size in sizes)]
    lines = []
    for row in record["rows"]:
        counts = [f"{one['positives_per_object']:.1f}" for one in row["bins"]]
        fits = [f"{one['mean_best_iou']:.2f}" for one in row["bins"]]
        lines.append([row["detector"], row["similarity"], *counts, *fits])
    how = f"{record['images']} images of {record['dataset']}, commit {commit_of(record)}."
    return f"{table(heads, lines)}\n\n{how}"


def _size(edges: list[float | None]) -> str:
    low, high = edges
    return f"{low:g} px and more" if high is None else f"{low:g} to {high:g} px"
