"""What can be inserted or balanced: gains and costs beside the same detector without."""

from collections.abc import Mapping, Sequence

from ablation_rows import OPTION_ROWS, ROWS
from pyramids import BASELINE
from records import Record, Records, differences, metric, with_seeds_of

from rendering.markdown import ABSENT, NOT_RUN, table

COLUMNS = {
    "AP": "AP",
    "AP_0_16": "AP 0-16",
    "AP_0_8": "AP 0-8",
    "AP_8_16": "AP 8-16",
    "AP_16_inf": "AP 16+",
    "AR_0_16": "AR 0-16",
}
# Which of PYRAMIDS has the costs of a row. DCLoss costs nothing in inference.
COSTS = {
    "fpn_1x": "FPN",
    "fpn_cem": "FPN + CEM",
    "fpn_fbsm": "FPN + FBSM",
    "fpn_fbsm_supervised": "FPN + FBSM",
    "fpn_dcloss": "FPN",
    "fpn_bs": "FPN + CEM + FBSM",
    "fpn_sgdm": "FPN + SGDM after res2-res5",
    "scratch_rpn": "EFPN, preset paper",
    "scratch_rpn_sgdm": "EFPN, preset paper + SGDM after res2-res5",
    "scratch_rpn_all": "EFPN, preset paper + CEM + FBSM + SGDM",
}


def render_options(
    records: Records, cost: Record, speed: Record, protocol: str, variant: str
) -> str:
    """Each detector, and below it the differences that options make, by seed.

    Args:
        records: of the ablation.
        cost: a record of benchmarks/cost.py.
        speed: a record of benchmarks/speed.py of pyramids.
        protocol, variant: of the rows.
    """
    lines = []
    for base, others in OPTION_ROWS.items():
        for name in (base, *others):
            runs = with_seeds_of(records, protocol, variant, (name, base))[name]
            if not runs:
                continue
            if name == base:
                cells = [mean([metric(x, key) for x in runs.values()]) for key in COLUMNS]
            else:
                gains = [differences(records, protocol, variant, name, base, x) for x in COLUMNS]
                cells = [mean_and_range(x) for x in gains]
            cells += costs(COSTS[name], cost, speed)
            lines.append([f"`{name}`", ROWS[name].title, str(len(runs)), *cells])
    heads = ["row", "", "seeds", *COLUMNS.values(), "parameters", "MACs", "time"]
    return f"{table(heads, lines)}\n\n{provenance(cost, speed)}" if lines else ABSENT


def mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1f}"


def mean_and_range(gains: Mapping[int, float]) -> str:
    """The mean over the seeds, and the least and the most of several."""
    own = gains.values()
    text = f"{sum(own) / len(own):+.1f}"
    return text if len(own) == 1 else f"{text} ({min(own):+.1f} to {max(own):+.1f})"


def costs(name: str, cost: Record, speed: Record) -> list[str]:
    """Parameters, multiply-accumulates and time of a pyramid, the last two as ratios."""
    rows, timed = cost["rows"], speed["rows"].get(name)
    if name not in rows:
        return [NOT_RUN] * 3
    return [
        f"{rows[name]['parameters_m']:.2f} M",
        f"{rows[name]['gmacs'] / rows[BASELINE]['gmacs']:.3f} x",
        f"{timed['ratio']:.3f} x" if timed else NOT_RUN,
    ]


def provenance(cost: Record, speed: Record) -> str:
    """What the table holds, and where its times were measured."""
    return (
        "Below each detector: what the option adds to it, mean over the seeds (least to most). "
        "Parameters, multiply-accumulates and time are of backbone and pyramid with ResNet-50 at "
        f"{cost['size']} px, the last two relative to FPN; time on {speed['threads']} thread of "
        f"{speed['hardware']['cpu']}, in turns, median of {speed['rounds']} rounds."
    )
