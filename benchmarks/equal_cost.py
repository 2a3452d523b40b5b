"""AP beside CPU time: what a detector gains over FPN + SGDM at the same CPU time.

AP is of the ablation's rows. CPU time and memory are those of the same kind of detector with
ResNet-50 on an image of 800 px, as multiples of FPN's.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ablation_records import NOT_RUN, Records, mean_and_spread, metric, provenance
from draw_equal_cost import Curve, Mark, write_equal_cost_figure
from equal_cost_rows import SCALES
from speed_tables import provenance as speed_provenance

RESULTS = Path(__file__).resolve().parent / "results"
SPEED = "speed/equal_cost/R_50_800_cpu"
STEPS = "train_step/detectors_R_50_640_cpu"
BASELINE = "FPN"  # of DETECTORS
COLUMNS = {"AP_0_16": "AP 0-16", "AP_16_inf": "AP 16+", "AP": "AP"}
SMALL, LARGE = "AP_0_16", "AP_16_inf"
NONE = "-"

# The targets of EFPN slim, as multiples of FPN's.
TIME_TARGET, MEMORY_TARGET, STEP_TARGET = 1.15, 1.10, 1.25
# In points of AP: less FPN 2x's; over FPN + SGDM's at equal CPU time, small and large objects.
DISTANCE_TARGET, SMALL_TARGET, LARGE_TARGET = -1.0, 10.0, 0.0


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


def render_points(points: Points) -> str:
    """Markdown: AP, costs, and AP over the line of FPN + SGDM, of each detector."""
    heads = ["detector", *COLUMNS.values(), "seeds", "CPU time, of FPN's", "memory, of FPN's"]
    heads.append(f"AP 0-16 over {SGDM_LINE} at equal CPU time (seeds)")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    line = timed_line(points)
    for name, point in points.items():
        cells = [mean_and_spread(list(point.values(key).values())) for key in COLUMNS]
        cells += [str(len(point.runs)), multiple(point.time), multiple(point.memory)]
        lines.append(f"| {' | '.join([name, *cells, over_line_cell(line, point)])} |")
    return "\n".join(lines)


def multiple(value: float | None) -> str:
    return NOT_RUN if value is None else f"{value:.2f}"


def over_line_cell(line: Sequence[Point], point: Point) -> str:
    """The mean over the seeds and their number."""
    if point.line == SGDM_LINE:
        return NONE
    if point.time is None or not line:
        return NOT_RUN
    values = over_line(line, point, SMALL)
    return NONE if values is None else paired(values)


def paired(values: Mapping[int, float]) -> str:
    """The mean of differences, and of how many seeds it is."""
    text = mean_and_spread(list(values.values()), sign="+")
    return f"{text} ({len(values)})" if values else text


class Claim(NamedTuple):
    """Something said of EFPN slim: a number, and what it must be."""

    text: str
    target: str
    measured: str
    is_met: bool | None
    """None: not known, or there is no target."""


def render_claims(points: Points, steps: Mapping[str, Any] | None) -> str:
    """Markdown: what is claimed of EFPN slim, as met or missed.

    Args:
        points: see :func:`make_points`.
        steps: a record of benchmarks/train_step.py of detectors; None: not there.
    """
    verdicts = {True: "met", False: "missed", None: NONE}
    lines = [f"| {SLIM} | target | measured | |", "|---|---|---|---|"]
    for claim in claims(points, steps):
        lines.append(
            f"| {claim.text} | {claim.target} | {claim.measured} | {verdicts[claim.is_met]} |"
        )
    return "\n".join(lines)


def claims(points: Points, steps: Mapping[str, Any] | None) -> list[Claim]:
    """Of AP first, then of costs."""
    slim, line = points[SLIM], timed_line(points)
    own, fpn_2x = slim.values(SMALL), points[FPN_2X].values(SMALL)
    distance = {seed: own[seed] - fpn_2x[seed] for seed in sorted(own.keys() & fpn_2x.keys())}
    step = steps["rows"].get(ENTRIES[SLIM].detector, {}).get("ratio") if steps else None
    at_equal_time = f"over {SGDM_LINE}'s at equal CPU time (seeds)"
    return [
        paired_claim(f"AP 0-16 less {FPN_2X}'s (seeds)", DISTANCE_TARGET, distance),
        gain_claim(f"AP 0-16 {at_equal_time}", SMALL_TARGET, slim, line, SMALL),
        gain_claim(f"AP 16+ {at_equal_time}", LARGE_TARGET, slim, line, LARGE),
        cost_claim("CPU time, of FPN's", TIME_TARGET, slim.time),
        cost_claim("memory, of FPN's", MEMORY_TARGET, slim.memory),
        cost_claim("CPU time of a training step, of FPN's", STEP_TARGET, step),
    ]


def paired_claim(text: str, target: float, values: Mapping[int, float]) -> Claim:
    """That the mean of differences by seed is at least the target."""
    is_met = statistics.mean(values.values()) >= target if values else None
    return Claim(text, f"at least {target:g}", paired(values), is_met)


def gain_claim(text: str, target: float, point: Point, line: Sequence[Point], name: str) -> Claim:
    """That a point is above the line by at least the target."""
    if point.time is None or not line:
        return Claim(text, f"at least {target:g}", NOT_RUN, None)
    values = over_line(line, point, name)
    if values is None:
        return Claim(text, f"at least {target:g}", "outside of the line", None)
    return paired_claim(text, target, values)


def cost_claim(text: str, target: float, measured: float | None) -> Claim:
    """That a cost is at most its target."""
    is_met = None if measured is None else measured <= target
    shown = NOT_RUN if measured is None else f"{measured:.3f}"
    return Claim(text, f"at most {target:.2f}", shown, is_met)


def read_record(name: str) -> dict[str, Any] | None:
    """A record of benchmarks/results; None: it is not there."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def render_equal_cost(records: Records, protocol: str, variant: str) -> str:
    """Markdown: the table, where its numbers come from, and the claims."""
    speed, steps = read_record(SPEED), read_record(STEPS)
    points = make_points(records, protocol, variant, speed)
    rows = {entry.row for entry in ENTRIES.values()}
    own = {key: seeds for key, seeds in records.items() if key[1] in rows}
    parts = [render_points(points)]
    if any(point.runs for point in points.values()):
        parts.append(f"AP: {protocol} protocol. {provenance(own, protocol, variant)}")
    if speed:
        parts.append(f"CPU time and memory: {speed_provenance(speed)}")
    return "\n\n".join([*parts, render_claims(points, steps)])


def render_equal_cost_figure(records: Records, protocol: str, variant: str) -> str:
    """Draw AP over time; the link to the figure."""
    speed = read_record(SPEED)
    points = make_points(records, protocol, variant, speed)
    marks = {name: make_mark(points[name]) for name in points}
    drawn = {name: mark for name, mark in marks.items() if mark is not None}
    if not drawn:
        return f"({NOT_RUN})"
    lines: dict[str, Curve] = {FPN_LINE: {}, SGDM_LINE: {}}
    for name, mark in drawn.items():
        if points[name].line:
            lines[points[name].line][name.split()[-1]] = mark
    alone = {name: mark for name, mark in drawn.items() if not points[name].line}
    labels = (
        f"CPU time, multiples of FPN's ({speed['backbone']}, {speed['size']} px)",
        f"AP of objects of 0 to 16 px (%), {protocol} protocol",
    )
    file = RESULTS / f"equal_cost_{variant}.png"
    write_equal_cost_figure(file, lines, alone, labels)
    return f"![AP of small objects over CPU time, {variant}](results/{file.name})"


def make_mark(point: Point) -> Mark | None:
    """Time, mean and standard deviation (0 of one seed); None: one of them was not measured."""
    values = list(point.values(SMALL).values())
    if point.time is None or not values:
        return None
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return Mark(point.time, statistics.mean(values), spread)
