"""The records of benchmarks/ablation.py, and the numbers in them."""

import json
import re
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablation_rows import pixels_per_student_pixel

NOT_RUN = "not run"
Records = dict[tuple[str, str, str], dict[int, dict[str, Any]]]


def load_records(folder: Path) -> Records:
    """All records by (protocol, row, variant), then by seed."""
    records: Records = defaultdict(dict)
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text())
        key = (record["protocol"], record["row"], record["variant"])
        records[key][record["seed"]] = record
    return records


def metric(record: dict[str, Any], name: str) -> float | None:
    """One number of a record; ``STAGE:NAME``: after that stage. Sizes are in student pixels."""
    if ":" not in name:
        return record["by_size"].get(name, record["metrics"]["bbox"].get(name))
    stage, name = name.split(":")
    factor = pixels_per_student_pixel(record["variant"])
    # In training the evaluator counts in pixels of the files.
    own = re.sub(r"(?<=_)\d+", lambda size: str(int(size[0]) * factor), name)
    (after,) = (x["metrics"]["bbox"] for x in record["stages"] if x["stage"] == stage)
    return after.get(own)


def mean_and_spread(values: Sequence[float | None], sign: str = "") -> str:
    """``mean``, with the sample standard deviation where there are several values."""
    known = [v for v in values if v is not None]
    if not known:
        return NOT_RUN
    mean = f"{statistics.mean(known):{sign}.1f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.1f}"


def provenance(records: Records, protocol: str, variant: str) -> str:
    """Where the numbers of a table were measured."""
    runs = [
        run
        for (own, _, of), seeds in records.items()
        for run in seeds.values()
        if (own, of) == (protocol, variant)
    ]
    commits = sorted({(run["commit"] or "unknown")[:7] for run in runs})
    versions = sorted({f"torch {run['versions']['torch']}" for run in runs})
    machines = sorted(
        {f"cores of {run['hardware']['cpu']}: {run['hardware']['cpu_cores']}" for run in runs}
    )
    gpus = sorted({str(gpu) for run in runs for gpu in run["hardware"]["gpus"]})
    return (
        f"Mean ± standard deviation over the seeds. Run on {'; '.join([*machines, *gpus])}; "
        f"{', '.join(versions)}; commits {', '.join(commits)}."
    )
