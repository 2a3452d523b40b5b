"""The table of benchmarks/cost.py."""

from pyramids import BASELINE
from records import Record

from rendering.markdown import commit_of, table


def render_cost(record: Record) -> str:
    """Parameters and multiply-accumulates of bottom-up network and pyramid."""
    rows, size = record["rows"], record["size"]
    base = rows[BASELINE]["gmacs"]
    lines = [
        [name, str(row["parameters_m"]), str(row["gmacs"]), f"{row['gmacs'] / base:.2f} x"]
        for name, row in rows.items()
    ]
    heads = ["", "parameters (M)", "multiply-accumulates (10^9)", "of FPN's"]
    return (
        f"Backbone and pyramid of `{record['config']}` on an image of {size} x {size} px, counted "
        f"by fvcore (commit {commit_of(record)}):\n\n{table(heads, lines)}"
    )
