"""Tables of AP beside CPU time, and of the targets of EFPN slim."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from equal_cost import (
    ENTRIES,
    FPN_2X,
    SGDM_LINE,
    SLIM,
    Point,
    Points,
    make_points,
    over_line,
    timed_line,
)
from records import Record, Records

from rendering.markdown import NONE, NOT_RUN, differences_text, mean_and_spread, table
from rendering.speed_tables import provenance

SMALL, LARGE = "AP_0_16", "AP_16_inf"
COLUMNS = {SMALL: "AP 0-16", LARGE: "AP 16+", "AP": "AP"}

# Of EFPN slim, as multiples of FPN's.
TIME_TARGET, MEMORY_TARGET, STEP_TARGET = 1.15, 1.10, 1.25
# In points of AP: less FPN 2x's; over FPN + SGDM's at equal CPU time, small and large objects.
DISTANCE_TARGET, SMALL_TARGET, LARGE_TARGET = -1.0, 10.0, 0.0


class Target(NamedTuple):
    """What a number of EFPN slim must be."""

    text: str
    wanted: str
    measured: str
    is_met: bool | None
    """None: not known."""


def render_equal_cost(
    records: Records, speed: Record | None, steps: Record | None, protocol: str, variant: str
) -> str:
    """All detectors, where their times come from, and the targets of EFPN slim.

    Args:
        records: of the ablation.
        speed: a record of benchmarks/speed.py; None: not there.
        steps: a record of benchmarks/train_step.py of detectors; None: not there.
        protocol, variant: of the rows.
    """
    points = make_points(records, protocol, variant, speed)
    blocks = [render_points(points)]
    if speed:
        blocks.append(f"CPU time and memory: {provenance(speed)}")
    return "\n\n".join([*blocks, render_slim_targets(points, steps)])


def render_points(points: Points) -> str:
    """AP, costs, and AP over the line of FPN + SGDM, of each detector that has AP."""
    heads = ["detector", *COLUMNS.values(), "seeds", "CPU time, of FPN's", "memory, of FPN's"]
    heads.append(f"AP 0-16 over {SGDM_LINE} at equal CPU time (seeds)")
    rows, line = [], timed_line(points)
    for name, point in points.items():
        if not point.runs:
            continue
        cells = [mean_and_spread(list(point.values(key).values())) for key in COLUMNS]
        cells += [str(len(point.runs)), multiple(point.time), multiple(point.memory)]
        rows.append([name, *cells, over_line_cell(line, point)])
    missing = ", ".join(name for name, point in points.items() if not point.runs)
    return table(heads, rows) + (f"\n\n{NOT_RUN.capitalize()}: {missing}." if missing else "")


def multiple(value: float | None) -> str:
    """Two digits of a cost as a multiple."""
    return NOT_RUN if value is None else f"{value:.2f}"


def over_line_cell(line: Sequence[Point], point: Point) -> str:
    """The mean over the seeds and their number."""
    if point.line == SGDM_LINE:
        return NONE
    if point.time is None or not line:
        return NOT_RUN
    values = over_line(line, point, SMALL)
    return NONE if values is None else with_seeds(values)


def with_seeds(values: Mapping[int, float]) -> str:
    """The mean of differences, and of how many seeds it is."""
    text = differences_text(values)
    return f"{text} ({len(values)})" if values else text


def render_slim_targets(points: Points, steps: Record | None) -> str:
    """The targets of EFPN slim, as met or missed; arguments as of :func:`render_equal_cost`."""
    verdicts = {True: "met", False: "missed", None: NONE}
    rows = [[*target[:3], verdicts[target.is_met]] for target in slim_targets(points, steps)]
    return table([SLIM, "target", "measured", ""], rows)


def slim_targets(points: Points, steps: Record | None) -> list[Target]:
    """Of AP first, then of costs."""
    slim, line = points[SLIM], timed_line(points)
    own, fpn_2x = slim.values(SMALL), points[FPN_2X].values(SMALL)
    distance = {seed: own[seed] - fpn_2x[seed] for seed in sorted(own.keys() & fpn_2x.keys())}
    step = steps["rows"].get(ENTRIES[SLIM].detector, {}).get("ratio") if steps else None
    at_equal_time = f"over {SGDM_LINE}'s at equal CPU time (seeds)"
    return [
        difference_target(f"AP 0-16 less {FPN_2X}'s (seeds)", DISTANCE_TARGET, distance),
        gain_target(f"AP 0-16 {at_equal_time}", SMALL_TARGET, slim, line, SMALL),
        gain_target(f"AP 16+ {at_equal_time}", LARGE_TARGET, slim, line, LARGE),
        cost_target("CPU time, of FPN's", TIME_TARGET, slim.time),
        cost_target("memory, of FPN's", MEMORY_TARGET, slim.memory),
        cost_target("CPU time of a training step, of FPN's", STEP_TARGET, step),
    ]


def difference_target(text: str, least: float, values: Mapping[int, float]) -> Target:
    """That the mean of differences by seed is at least ``least``."""
    is_met = statistics.mean(values.values()) >= least if values else None
    return Target(text, f"at least {least:g}", with_seeds(values), is_met)


def gain_target(text: str, least: float, point: Point, line: Sequence[Point], name: str) -> Target:
    """That a point is above the line by at least ``least``."""
    if point.time is None or not line:
        return Target(text, f"at least {least:g}", NOT_RUN, None)
    values = over_line(line, point, name)
    if values is None:
        return Target(text, f"at least {least:g}", "outside of the line", None)
    return difference_target(text, least, values)


def cost_target(text: str, most: float, measured: float | None) -> Target:
    """That a cost is at most ``most``."""
    is_met = None if measured is None else measured <= most
    shown = NOT_RUN if measured is None else f"{measured:.3f}"
    return Target(text, f"at most {most:.2f}", shown, is_met)
