"""The tables of docs/evaluation.md, from the committed records in benchmarks/results."""

from typing import Any


def render_speed(record: dict[str, Any]) -> str:
    """What the backends take, from ``benchmarks/evaluation_speed.py``'s record."""
    cases = record["cases"].values()
    names = list(next(iter(record["cases"].values()))["rows"])
    versions = dict(text.rsplit(" ", 1) for text in record["backends"])
    heads = [
        f"{case['images']} images x {case['detections_per_image']} detections, "
        f"{case['classes']} classes, `{case['protocol']}`"
        for case in cases
    ]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in names:
        cells = [_cell(case["rows"][name]) for case in cases]
        lines.append(f"| {name} {versions[name]} | {' | '.join(cells)} |")
    worst = max(row["largest_difference"] for case in cases for row in case["rows"].values())
    olrp = [
        f"oLRP, which no backend computes, adds "
        f"{case['whole_protocol_seconds'] - case['rows'][names[-1]]['seconds']:.1f} s to the first."
        for case in cases
        if case["protocol"] == "aitod"
    ]
    hardware = record["hardware"]
    return "\n".join(
        [
            *lines,
            "",
            f"The largest difference of any precision is {worst:.0e}. {' '.join(olrp)}",
            "(`benchmarks/evaluation_speed.py`: processor seconds of all threads, from Python's "
            f"dicts to the metrics, random boxes, {hardware['cpu_cores']} core of "
            f"{hardware['cpu']}, seed {record['seed']}, commit {record['commit'][:7]}.)",
        ]
    )


def _cell(row: dict[str, Any]) -> str:
    times = f" ({row['times_faster']:g} x)" if row["times_faster"] != 1 else ""
    return f"{row['seconds']:.1f} s{times}"
