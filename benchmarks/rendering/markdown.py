"""Tables and numbers in Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

NOT_RUN = "not run"
NONE = "-"
"""In a cell without a number."""
ABSENT = f"({NOT_RUN})"
"""In the place of a table or figure without a record."""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a line of heads and one for each row."""
    lines = [heads, *rows]
    texts = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([texts[0], "|" + "---|" * len(heads), *texts[1:]])


def mean_and_spread(values: Sequence[float | None], sign: str = "") -> str:
    """``mean``, with the sample standard deviation where there are several values."""
    known = [v for v in values if v is not None]
    if not known:
        return NOT_RUN
    mean = f"{statistics.mean(known):{sign}.1f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.1f}"


def differences_text(values: Mapping[int, float]) -> str:
    """The mean of differences by seed with its sign, and their standard deviation."""
    return mean_and_spread(list(values.values()), sign="+")


def commit_of(record: Mapping[str, Any]) -> str:
    """The first digits of the commit that a record was made at."""
    return (record["commit"] or "unknown")[:7]
