"""Tables of the records of benchmarks/ablation.py."""

import math
import re
from collections.abc import Sequence

from ablation_rows import OPTION_ROWS, ROWS
from equal_cost import ENTRIES
from equal_cost_rows import EQUAL_COST_ROWS
from records import Records, differences, metric, recovered
from row_spec import PROTOCOLS

from efpn_d2.evaluation.size_bins import SizeBin
from rendering.markdown import (
    ABSENT,
    NONE,
    commit_of,
    differences_text,
    mean_and_spread,
    table,
)

# All but the lines of the figure at equal cost.
_POINTS = {entry.row for entry in ENTRIES.values() if entry.row.startswith("fpn")}
SLIM = tuple(
    sorted((x for x in EQUAL_COST_ROWS if x not in _POINTS), key=lambda x: x.startswith("fpn"))
)
# Rows that have tables of their own.
_OPTIONS = {name for names in OPTION_ROWS.values() for name in names}
SHOWN = tuple(name for name in ROWS if name not in _OPTIONS | EQUAL_COST_ROWS.keys())


def size_bins(protocol: str) -> list[tuple[float, float]]:
    """The bins that a protocol reports, in student pixels."""
    edges = PROTOCOLS[protocol].size_bins
    return list(zip(edges, (*edges[1:], math.inf), strict=True))


def metric_title(name: str) -> str:
    """``AP 0-16`` of ``AP_0_16``, ``AP 16+`` of ``AP_16_inf``."""
    return re.sub(r"_(\d+)_", r" \1-", name).replace("-inf", "+")


def render_rows(records: Records, protocol: str, variant: str, rows: Sequence[str] = SHOWN) -> str:
    """Those of ``rows`` that were run in a protocol and variant."""
    labels = [SizeBin(*pair).label for pair in size_bins(protocol)]
    metrics = ["AP", "AP_0_16", *(f"AP_{label}" for label in labels), "AR_0_16"]
    lines = []
    for name in rows:
        runs = list(records.get((protocol, name, variant), {}).values())
        if not runs:
            continue
        values = [mean_and_spread([metric(run, key) for run in runs]) for key in metrics]
        gains = differences(records, protocol, variant, name, "fpn_1x")
        values.append(differences_text(gains) if gains and name != "fpn_1x" else NONE)
        iterations = {sum(stage["iterations"] for stage in run["stages"]) for run in runs}
        cells = [f"`{name}`", ROWS[name].title, ROWS[name].paper or NONE, str(len(runs)), *values]
        lines.append([*cells, "/".join(map(str, sorted(iterations)))])
    heads = ["row", "", "paper", "seeds", *map(metric_title, metrics)]
    return table([*heads, "AP 0-16 over FPN 1x", "iterations"], lines) if lines else ABSENT


def render_recovered(records: Records, protocol: str) -> str:
    """What each row recovers of the gain of FPN 2x, in all variants."""
    variants = sorted({variant for own, _, variant in records if own == protocol})
    lines = []
    for name in (*SHOWN, *SLIM):
        shares = [recovered(records, protocol, variant, name) for variant in variants]
        if any(shares) and name not in ("fpn_1x", "fpn_2x"):
            texts = [f"{mean_and_spread(x)} % ({len(x)})" if x else NONE for x in shares]
            lines.append([f"`{name}`", ROWS[name].title, *texts])
    return table(["row", "", *variants], lines)


def render_finding(
    records: Records, protocol: str, variant: str, name: str, row: str, sign: str, other: str
) -> str:
    """Cells of a comparison: the rows, where, the metric, seeds, and the difference.

    Args:
        records: of the ablation.
        protocol, variant: of both rows.
        name: of the metric.
        row, other: those that are compared.
        sign: what is said of them: ">", "<", or "~" for less than a point.
    """
    values = differences(records, protocol, variant, row, other, name)
    cells = [f"`{row}` {sign} `{other}`", variant, metric_title(name), str(len(values))]
    return " | ".join([*cells, differences_text(values)])


def render_provenance(records: Records) -> str:
    """Where and with what the trainings and evaluations of each protocol and variant were run."""
    lines = []
    for protocol, variant in sorted({(own, of) for own, _, of in records}):
        runs = [
            run
            for (own, _, of), seeds in records.items()
            for run in seeds.values()
            if (own, of) == (protocol, variant)
        ]
        hardware = [run["hardware"] for run in runs]
        machines = {f"{x['cpu']} ({x['cpu_cores']})" for x in hardware}
        machines |= {str(gpu) for x in hardware for gpu in x["gpus"]}
        versions = {run["versions"]["torch"] for run in runs}
        commits = {commit_of(run) for run in runs}
        cells = [protocol, variant, str(len(runs))]
        lines.append([*cells, *(", ".join(sorted(x)) for x in (machines, versions, commits))])
    return table(["protocol", "variant", "records", "CPU (cores)", "torch", "commits"], lines)
