"""What can be inserted or balanced: gains and costs beside the same detector without."""

import json
from pathlib import Path
from typing import Any

from ablation_rows import OPTION_ROWS, ROWS

RESULTS = Path(__file__).resolve().parent / "results"
COLUMNS = {
    "AP": "AP",
    "AP_0_16": "AP 0-16",
    "AP_0_8": "AP 0-8",
    "AP_8_16": "AP 8-16",
    "AP_16_inf": "AP 16+",
    "AR_0_16": "AR 0-16",
}
# Which of benchmarks/variants.py has the costs of a row. DCLoss costs nothing in inference.
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
    records: dict[tuple[str, str, str], dict[int, dict[str, Any]]], protocol: str, variant: str
) -> str:
    """Markdown: each detector, and below it the differences that options make, by seed.

    Args:
        records: as ``render_results.load_records`` returns them.
        protocol, variant: of the rows.
    """
    cost, speed = (json.loads((RESULTS / f"{x}.json").read_text()) for x in ("cost", "speed_cpu"))
    heads = ["row", "seeds", *COLUMNS.values(), "parameters", "MACs", "time"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for base, others in OPTION_ROWS.items():
        for name in (base, *others):
            runs = records.get((protocol, name, variant), {})
            without = records.get((protocol, base, variant), {})
            if not (runs and without):
                continue
            seeds = sorted(runs.keys() & without.keys())
            cells = [values(runs, without, seeds, key, name != base) for key in COLUMNS]
            cells += costs(COSTS[name], cost, speed)
            lines.append(f"| {' | '.join([ROWS[name].title, str(len(seeds)), *cells])} |")
    return "\n".join([*lines, "", provenance(cost, speed)]) if len(lines) > 2 else "(not run)"


def values(
    runs: dict[int, dict[str, Any]],
    without: dict[int, dict[str, Any]],
    seeds: list[int],
    key: str,
    difference: bool,
) -> str:
    """The mean over the seeds of a metric, or of its difference to the detector without."""
    own, base = ([metric(x[seed], key) for seed in seeds] for x in (runs, without))
    if not difference:
        return f"{sum(own) / len(own):.1f}"
    gains = [x - y for x, y in zip(own, base, strict=True)]
    text = f"{sum(gains) / len(gains):+.1f}"
    return text if len(gains) == 1 else f"{text} ({min(gains):+.1f} to {max(gains):+.1f})"


def metric(record: dict[str, Any], key: str) -> float:
    return record["metrics"]["bbox"]["AP"] if key == "AP" else record["by_size"][key]


def costs(variant: str, cost: dict[str, Any], speed: dict[str, Any]) -> list[str]:
    """Parameters, multiply-accumulates and time of backbone and pyramid, the last two as ratios."""
    rows, fpn = cost["rows"], cost["rows"]["FPN"]
    if variant not in rows:
        return ["not run"] * 3
    timed = speed["rows"].get(variant)
    return [
        f"{rows[variant]['parameters_m']:.2f} M",
        f"{rows[variant]['gmacs'] / fpn['gmacs']:.3f} x",
        f"{timed['ratio']:.3f} x" if timed else "not run",
    ]


def provenance(cost: dict[str, Any], speed: dict[str, Any]) -> str:
    hardware = speed["hardware"]
    return (
        "Below each detector: what the option adds to it, mean over the seeds (least to most). "
        "Parameters, multiply-accumulates and time are of backbone and pyramid with ResNet-50 at "
        f"{cost['size']} px, the last two relative to FPN; time on {speed['threads']} thread of "
        f"{hardware['cpu']}, in turns, median of {speed['rounds']} rounds."
    )
