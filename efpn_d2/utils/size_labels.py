"""How bins of object sizes are named: in metrics, in tables and in sentences."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

Style = Literal["key", "short", "range", "text"]

# Of a bin with an upper end and of one without.
_TEMPLATES: dict[Style, tuple[str, str]] = {
    "key": ("{low:g}_{high:g}", "{low:g}_inf"),
    "short": ("{low:g}-{high:g}", "{low:g}+"),
    "range": ("{low} to {high}", "{low} and more"),
    "text": ("{low} to {high} px", "{low} px and more"),
}


def size_label(low: float, high: float, style: Style = "text") -> str:
    """Return the name of a size bin.

    Args:
        low: lower end in pixels.
        high: upper end in pixels; may be infinite.
        style: "key" ("8_16", "32_inf"), for metric names; "short" ("8-16", "32+"), for table
            headings; "range" ("8 to 16", "32 and more"), also for areas; or "text" ("8 to 16 px",
            "32 px and more").
    """
    bounded, unbounded = _TEMPLATES[style]
    template = unbounded if math.isinf(high) else bounded
    if style in ("range", "text"):
        return template.format(low=_number(low), high=_number(high))
    return template.format(low=low, high=high)


def size_labels(edges: Sequence[float], style: Style = "text") -> list[str]:
    """Names of the bins between ascending edges, and of the one from the last edge on."""
    return [size_label(*ends, style) for ends in pairwise([*edges, math.inf])]


def _number(value: float) -> str:
    """Four digits, but no powers of ten."""
    return f"{value:.4g}" if value < 1e4 else f"{value:.0f}"
