"""AP beside CPU time: what a detector gains over FPN + SGDM at the same CPU time.

AP is of the ablation's rows. CPU time and memory are those of the same kind of detector with
ResNet-50 on an image of 800 px, as multiples of FPN's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from equal_cost_rows import SCALES
from pyramids import BASELINE
from records import Records, metric

# Records of the times.
SPEED = "speed/equal_cost/R_50_800_cpu"
STEPS = "train_step/detectors_R_50_640_cpu"


class Entry(NamedTuple):
    """One detector: which row of the ablation has its AP, and which detector its time."""

    row: str
    """Of ``ROWS``; "": none evaluates it."""
    detector: str
    """Of ``DETECTORS``."""
    line: str = ""
    """The line of the figure that it is on; "": a point by itself."""


FPN_LINE, SGDM_LINE = "FPN", "FPN + SGDM"
SLIM, FPN_2X, WIDE = "EFPN slim", "FPN 2x", "EFPN wide: paper + SGDM, P'2 in the RPN"
ENTRIES = {
    "FPN 1x": Entry("fpn_1x", "FPN", FPN_LINE),
    **{
        f"FPN {x:g}x": Entry(f"fpn_{x:g}x", f"FPN at {x:g} times the side", FPN_LINE)
        for x in SCALES[:-1]
    },
    FPN_2X: Entry("fpn_2x", "FPN on the image at twice the side", FPN_LINE),
    "FPN + SGDM 1x": Entry("fpn_sgdm", "FPN + SGDM", SGDM_LINE),
    **{
        f"FPN + SGDM {x:g}x": Entry(
            f"fpn_sgdm_{x:g}x", f"FPN + SGDM at {x:g} times the side", SGDM_LINE
        )
        for x in SCALES
    },
    "FPN trained at 1x, tested at 2x": Entry("fpn_1x_at_2x", "FPN on the image at twice the side"),
    "FPN 1x on the image and 2 x 2 slices": Entry("fpn_1x_slices", "FPN + 2 x 2 slices"),
    SLIM: Entry("slim", "EFPN slim + SGDM"),
    "EFPN slim, small heads on P'2 alone": Entry("slim_p2_prime", "EFPN slim, P'2 alone"),
    "the same, 1/4 of the channels": Entry(
        "slim_p2_prime_quarter", "EFPN slim, P'2 alone, of 64 channels"
    ),
    WIDE: Entry("scratch_rpn_sgdm", "EFPN paper + SGDM, P'2 in the RPN, dense"),
    "EFPN, the paper's recipe": Entry("efpn", "EFPN paper, dense"),
}


@dataclass(frozen=True)
class Point:
    """A detector's AP by seed, and its costs as multiples of FPN's where they were measured."""

    line: str
    time: float | None = None
    memory: float | None = None
    runs: Mapping[int, dict[str, Any]] = field(default_factory=dict)

    def values(self, name: str) -> dict[int, float]:
        """A metric by seed."""
        values = {seed: metric(run, name) for seed, run in self.runs.items()}
        return {seed: value for seed, value in values.items() if value is not None}


Points = Mapping[str, Point]


def make_points(
    records: Records, protocol: str, variant: str, speed: Mapping[str, Any] | None
) -> dict[str, Point]:
    """All points by name.

    Args:
        records: of the ablation.
        protocol, variant: of the rows.
        speed: a record of benchmarks/speed.py; None: not there.
    """
    timed = speed["rows"] if speed else {}
    fpn_memory = timed.get(BASELINE, {}).get("memory_gib")
    points = {}
    for name, entry in ENTRIES.items():
        own = timed.get(entry.detector, {})
        memory = own.get("memory_gib")
        points[name] = Point(
            entry.line,
            own.get("ratio"),
            memory / fpn_memory if memory is not None and fpn_memory else None,
            records.get((protocol, entry.row, variant), {}),
        )
    return points


def timed_line(points: Points) -> list[Point]:
    """The points of the line of FPN + SGDM in the order of their times."""
    line = [p for p in points.values() if p.line == SGDM_LINE and p.time is not None]
    return sorted(line, key=lambda point: point.time)


def neighbours(line: Sequence[Point], time: float) -> tuple[Point, Point] | None:
    """The two next to each other that a time lies between; the same twice where it is a point's.

    None: the time is outside of the line.
    """
    for point in line:
        if point.time == time:
            return point, point
    for low, high in pairwise(line):
        if low.time < time < high.time:
            return low, high
    return None


def over_line(line: Sequence[Point], point: Point, name: str) -> dict[int, float] | None:
    """By seed: a metric less the line's at the same time, interpolated between two neighbours.

    Only seeds that the point and both neighbours have count. None: the point's time is not known,
    or is outside of the line.
    """
    ends = None if point.time is None else neighbours(line, point.time)
    if ends is None:
        return None
    low, high = ends
    share = (point.time - low.time) / (high.time - low.time) if low is not high else 0.0
    own, left, right = (p.values(name) for p in (point, low, high))
    return {
        seed: own[seed] - (left[seed] + share * (right[seed] - left[seed]))
        for seed in sorted(own.keys() & left.keys() & right.keys())
    }
