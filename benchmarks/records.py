"""The records in benchmarks/results, and the numbers of the ablation in them."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablation_rows import pixels_per_student_pixel

RESULTS = Path(__file__).resolve().parent / "results"
ABLATION = RESULTS / "ablation"
SMALL = "AP_0_16"
Record = dict[str, Any]
Records = dict[tuple[str, str, str], dict[int, Record]]
"""Those of the ablation by (protocol, row, variant), then by seed."""


def read_record(name: str) -> Record | None:
    """A record by its path below benchmarks/results; None: it is not there."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def load_records(folder: Path = ABLATION) -> Records:
    """All records of benchmarks/ablation.py in a folder."""
    records: Records = defaultdict(dict)
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text())
        key = (record["protocol"], record["row"], record["variant"])
        records[key][record["seed"]] = record
    return records


def metric(record: Record, name: str) -> float | None:
    """One number of a record; ``STAGE:NAME``: after that stage. Sizes are in student pixels."""
    if ":" not in name:
        return record["by_size"].get(name, record["metrics"]["bbox"].get(name))
    stage, name = name.split(":")
    factor = pixels_per_student_pixel(record["variant"])
    # In training the evaluator counts in pixels of the files.
    own = re.sub(r"(?<=_)\d+", lambda size: str(int(size[0]) * factor), name)
    (after,) = (x["metrics"]["bbox"] for x in record["stages"] if x["stage"] == stage)
    return after.get(own)


def with_seeds_of(
    records: Records, protocol: str, variant: str, rows: Iterable[str]
) -> dict[str, dict[int, Record]]:
    """Records of some rows by row and seed; the seeds are those that all of these rows have."""
    own = {row: records.get((protocol, row, variant), {}) for row in rows}
    seeds = sorted(set.intersection(*(set(runs) for runs in own.values())))
    return {row: {seed: runs[seed] for seed in seeds} for row, runs in own.items()}


def differences(
    records: Records, protocol: str, variant: str, row: str, other: str, name: str = SMALL
) -> dict[int, float]:
    """By seed: a metric of a row less that of another row, where both have it."""
    runs = with_seeds_of(records, protocol, variant, (row, other))
    pairs = {s: (metric(run, name), metric(runs[other][s], name)) for s, run in runs[row].items()}
    return {s: own - less for s, (own, less) in pairs.items() if None not in (own, less)}


def recovered(records: Records, protocol: str, variant: str, row: str) -> list[float]:
    """Per seed: the share of FPN 2x's gain over FPN 1x in AP below 16 px that a row has, in %."""
    runs = with_seeds_of(records, protocol, variant, ("fpn_1x", "fpn_2x", row))
    shares = []
    for seed, run in runs[row].items():
        low, high = (metric(runs[x][seed], SMALL) for x in ("fpn_1x", "fpn_2x"))
        if high > low:
            shares.append(100 * (metric(run, SMALL) - low) / (high - low))
    return shares
