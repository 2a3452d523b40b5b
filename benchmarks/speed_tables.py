"""Markdown tables of the records of time and memory, most of them of benchmarks/speed.py."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BASELINE = "FPN"
# Of the time of FPN 1x with the same backbone: what we want at most.
TARGETS = {
    "ResNet-50": {"EFPN paper, lazy, 10 % active": 1.60},
    "ResNeXt-101 32x8d": {"EFPN paper, dense": 2.33},
}
STEP_TARGET = 1.10  # of the bare passes of distillation
GROWTH = (
    BASELINE,
    "EFPN paper, dense",
    "EFPN paper, lazy, 10 % active",
    "FPN on the image at twice the side",
)
Record = dict[str, Any]


def load_speed_records(folder: Path) -> dict[str, Record]:
    """Records by name."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def render_speed(record: Record) -> str:
    """All that was timed in one run."""
    rows = record["rows"]
    has_memory = all("memory_gib" in row for row in rows.values())
    heads = ["", "time, of FPN's", "quartiles", "seconds", "10^9 MACs", "MACs, of FPN's"]
    heads += ["memory, GiB", "memory, of FPN's"] if has_memory else []
    heads.append("of P'2 computed")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    base_macs = sum(rows[BASELINE]["gmacs"].values())
    for name, row in rows.items():
        macs, (low, high) = sum(row["gmacs"].values()), row["ratio_quartiles"]
        cells = [name, f"{row['ratio']:.2f}", f"{low:.2f}-{high:.2f}", f"{row['seconds']:.2f}"]
        cells += [f"{macs:.0f}", f"{macs / base_macs:.2f}"]
        if has_memory:
            share = row["memory_gib"] / rows[BASELINE]["memory_gib"]
            cells += [f"{row['memory_gib']:.2f}", f"{share:.2f}"]
        computed = row.get("p2_prime_share")
        cells.append("-" if computed is None else f"{100 * computed:.0f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", provenance(record)])


def provenance(record: Record) -> str:
    """Of what and how a record of detectors was measured."""
    batch = record.get("batch", 1)
    return (
        f"{record['backbone']}, {record['size']} px, {f'batches of {batch}, ' * (batch > 1)}"
        f"{record['precision']}"
        f"{', channels last' if record['channels_last'] else ''}; {measured(record)}"
    )


def measured(record: Record) -> str:
    """Where and how a record was measured."""
    device = record["hardware"]["gpus"] or [record["hardware"]["cpu"]]
    variables = " ".join(f"{k}={v}" for k, v in sorted(record.get("environment", {}).items()))
    return (
        f"{', '.join(map(str, device))}, "
        f"{record['threads']} threads; median of {record['rounds']} rounds in turns; "
        f"torch {record['versions']['torch']}, commit {(record['commit'] or 'unknown')[:7]}"
        f"{f'; with `{variables}`' if variables else ''}."
    )


def render_parts(record: Record) -> str:
    """Arithmetic and seconds of each detector's layers by part, and seconds outside of them."""
    lines = ["| | part | 10^9 MACs | seconds | 10^9 MACs/s |", "|---|---|---|---|---|"]
    for name, row in record["rows"].items():
        for part, seconds in row["part_seconds"].items():
            macs = row["gmacs"].get(part)
            rate = ["-", f"{seconds:.3f}", "-"]
            if macs is not None:
                rate = [f"{macs:.1f}", f"{seconds:.3f}", f"{macs / seconds:.0f}"]
            lines.append(f"| {name} | {part} | {' | '.join(rate)} |")
    return "\n".join([*lines, "", provenance(record)])


def render_targets(records: Mapping[str, Record], size: int, device: str) -> str:
    """Our targets beside what was measured with images of ``size`` px."""
    lines = ["| backbone | | at most | measured | |", "|---|---|---|---|---|"]
    for backbone, targets in TARGETS.items():
        record = find(records, backbone, size, device)
        if record is None:
            lines.append(f"| {backbone} | | | not run | |")
            continue
        rows = record["rows"]
        for name, target in targets.items():
            if name in rows:
                ratio = rows[name]["ratio"]
                verdict = "met" if ratio <= target else "missed"
                cells = [backbone, f"{name}: time", f"{target:.2f}", f"{ratio:.2f}", verdict]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def find(records: Mapping[str, Record], backbone: str, size: int, device: str) -> Record | None:
    """The plain record of a backbone: single precision, maps in the usual order."""
    for record in records.values():
        own = (record["backbone"], record["size"], record["device"], record["precision"])
        if own == (backbone, size, device, "float32") and not record["channels_last"]:
            return record
    return None


def render_growth(
    records: Mapping[str, Record], backbone: str, device: str, names: Sequence[str] = GROWTH
) -> str:
    """How times grow with the side of the image."""
    own = sorted(
        (r for r in records.values() if r is find(records, backbone, r["size"], device)),
        key=lambda r: r["size"],
    )
    if not own:
        return "(not run)"
    lines = [
        "| side | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for record in own:
        cells = [f"{record['size']} px"]
        for name in names:
            row = record["rows"].get(name)
            text = "not run" if row is None else f"{row['seconds']:.2f} s"
            if row is not None and name != BASELINE:
                text += f" ({row['ratio']:.2f} x)"
            cells.append(text)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def render_lazy_accuracy(record: Record) -> str:
    """AP, and AP and recall (AR) by size, beside the share of P'2 computed."""
    metrics = record["rows"]["dense"]["bbox"]
    names = ["AP", *(x for prefix in ("AP_", "AR_") for x in metrics if x.startswith(prefix))]
    # "AP_8_16" -> "AP 8-16 px"
    heads = [" ".join(name.split("_", 1)).replace("_inf", "+").replace("_", "-") for name in names]
    heads = [f"{head} px" if " " in head else head for head in heads]
    lines = [f"| | {' | '.join(heads)} | of P'2 computed |", "|---|---|" + "---|" * len(names)]
    for name, row in record["rows"].items():
        cells = [f"{row['bbox'][key]:.2f}" for key in names]
        lines.append(f"| {name} | {' | '.join(cells)} | {100 * row['share']:.0f} % |")
    sides = ", ".join(map(str, record["tile_sides"]))
    how = f"Tiles of {sides} cells; commit {(record['commit'] or 'unknown')[:7]}."
    return "\n".join([*lines, "", how])


def render_loading(record: Record) -> str:
    """A sentence about what benchmarks/loading.py measured."""
    return (
        f"Training [{record['config']}](../configs/{record['config']}) on {record['device']} "
        f"({record['threads']} threads, {record['workers']} worker of the loader) takes "
        f"{record['iteration_seconds']:.2f} s an iteration of {record['images_per_batch']} images "
        f"and waits {100 * record['waiting_share']:.1f} % of the time for them; by itself the "
        f"loader makes such a batch in {record['loader_seconds']:.3f} s "
        f"(commit {(record['commit'] or 'unknown')[:7]})."
    )


def render_train_step(record: Record) -> str:
    """The step of the stage ``distill`` beside FPN's and the passes that it cannot do without."""
    bare, step = (record["rows"][x] for x in ("bare passes of distillation", "distillation step"))
    heads = ["one training step", "time, of the bare passes", "quartiles", "time, of FPN's"]
    heads += ["seconds", "memory, GiB", "memory, of the bare passes"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, row in record["rows"].items():
        low, high = row["ratio_quartiles"]
        cells = [name, f"{row['ratio']:.2f}", f"{low:.2f}-{high:.2f}", f"{row['ratio_to_fpn']:.2f}"]
        cells += [f"{row['seconds']:.2f}", f"{row['memory_gib']:.2f}"]
        cells.append(f"{row['memory_gib'] / bare['memory_gib']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    verdict = "met" if step["ratio"] <= STEP_TARGET else "missed"
    goal = f"At most {STEP_TARGET:.2f} times the bare passes is the goal: {verdict}."
    what = f"ResNet-{record['depth']}, preset {record['preset']}"
    images = f"images a batch: {record['batch']} of {record['size']} px"
    return "\n".join([*lines, "", f"{goal} {what}, {images}; {measured(record)}"])


def render_detector_steps(record: Record) -> str:
    """The training steps of whole detectors beside FPN's."""
    rows, time = record["rows"], "CPU time" if record["device"] == "cpu" else "time"
    heads = ["one training step", f"{time}, of FPN's", "quartiles", "seconds"]
    heads += ["memory, GiB", "memory, of FPN's"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, row in rows.items():
        low, high = row["ratio_quartiles"]
        share = row["memory_gib"] / rows[BASELINE]["memory_gib"]
        cells = [name, f"{row['ratio']:.2f}", f"{low:.2f}-{high:.2f}", f"{row['seconds']:.2f}"]
        cells += [f"{row['memory_gib']:.2f}", f"{share:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    images = f"images a batch: {record['batch']} of {record['size']} px"
    return "\n".join([*lines, "", f"ResNet-{record['depth']}, {images}; {measured(record)}"])
