#!/usr/bin/env python
"""Write benchmarks/RESULTS.md from its template and the records in benchmarks/results/ablation.

In the template, each of these comments is replaced:

* ``table PROTOCOL VARIANT``: the rows;
* ``recovered PROTOCOL``: what each recovers of the gain of FPN 2x;
* ``options PROTOCOL VARIANT``: gains and costs of what can be inserted;
* ``curves PROTOCOL VARIANT``: a figure;
* ``equal_cost PROTOCOL VARIANT``, ``equal_cost_figure PROTOCOL VARIANT``: AP beside time, and what
  is claimed of it;
* ``slim PROTOCOL VARIANT``: the variants of EFPN slim and FPN, and P'2 added to a trained detector;
* ``cost NAME``: the record of benchmarks/cost.py of that name;
* ``speed NAME``, ``parts NAME``, ``targets SIZE DEVICE``, ``growth DEVICE``: those of
  benchmarks/speed.py;
* ``lazy NAME``, ``loading NAME``, ``train_step NAME``, ``detector_steps NAME``: those of
  benchmarks/lazy_accuracy.py, loading.py and train_step.py;
* ``assignment NAME``, ``gpu_check NAME``: those of benchmarks/assignment.py and gpu_check.py.

In sentences, ``[[PROTOCOL ROW VARIANT METRIC]]`` becomes the mean over the seeds, and with
``STAGE:METRIC`` that after one of the row's stages. Rows of different seeds are compared by
``[[PROTOCOL ROW VARIANT METRIC with OTHER ...]]``: the seeds count that the other rows have, too.
METRIC may be ``recovered``, ``gain`` or ``seeds`` (their number). A value without a record is
"not run".
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ablation_records import (
    NOT_RUN,
    Records,
    load_records,
    mean_and_spread,
    metric,
    provenance,
)
from ablation_rows import OPTION_ROWS, PROTOCOLS, ROWS, pixels_per_student_pixel
from assignment_table import render_assignment
from draw_curves import write_training_curves
from equal_cost import ENTRIES, render_equal_cost, render_equal_cost_figure
from equal_cost_rows import EQUAL_COST_ROWS
from gpu_check_tables import render_gpu_check
from option_table import render_options
from speed_tables import (
    load_speed_records,
    render_detector_steps,
    render_growth,
    render_lazy_accuracy,
    render_loading,
    render_parts,
    render_speed,
    render_targets,
    render_train_step,
)

from efpn_d2.evaluation.size_bins import SizeBin

ROOT = Path(__file__).resolve().parent
GAIN_HEAD = "AP 0-16 over FPN 1x"
# All but the lines of the figure at equal cost.
_POINTS = {entry.row for entry in ENTRIES.values() if entry.row.startswith("fpn")}
SLIM = tuple(
    sorted((x for x in EQUAL_COST_ROWS if x not in _POINTS), key=lambda x: x.startswith("fpn"))
)
# Rows that have tables of their own.
OPTIONS = {name for names in OPTION_ROWS.values() for name in names}
ELSEWHERE = OPTIONS | EQUAL_COST_ROWS.keys()
SHOWN = tuple(name for name in ROWS if name not in ELSEWHERE)
CURVES = (
    "base",
    "fpn_1x",
    "fpn_2x",
    "efpn",
    "finetune_rpn",
    "scratch_rpn",
    "slim",
)


def size_bins(protocol: str) -> list[tuple[float, float]]:
    """The bins that a protocol reports, in student pixels."""
    edges = PROTOCOLS[protocol].size_bins
    return list(zip(edges, (*edges[1:], math.inf), strict=True))


def columns(protocol: str) -> dict[str, str]:
    """The metrics of a table by name, and their headings."""
    labels = [SizeBin(*pair).label for pair in size_bins(protocol)]
    names = ["AP", "AP_0_16", *(f"AP_{label}" for label in labels), "AR_0_16"]
    return {name: re.sub(r"_(\d+)_", r" \1-", name).replace("-inf", "+") for name in names}


def render_table(records: Records, protocol: str, variant: str, rows: Sequence[str] = SHOWN) -> str:
    """Those of ``rows`` that were run in a protocol and variant."""
    metrics = columns(protocol)
    heads = ["row", "the paper's", "seeds", *metrics.values(), GAIN_HEAD, "iterations"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name in rows:
        row, seeds = ROWS[name], records.get((protocol, name, variant))
        if not seeds:
            continue
        runs = list(seeds.values())
        values = [mean_and_spread([metric(run, key) for run in runs]) for key in metrics]
        gains = gain(records, protocol, name, variant) if name != "fpn_1x" else []
        values.append(mean_and_spread(gains, sign="+") if gains else "-")
        iterations = {sum(stage["iterations"] for stage in run["stages"]) for run in runs}
        cells = [row.title, row.paper or "-", str(len(runs)), *values]
        cells.append("/".join(str(i) for i in sorted(iterations)))
        lines.append(f"| {' | '.join(cells)} |")
    if len(lines) == 2:
        return f"({NOT_RUN})"
    return "\n".join([*lines, "", provenance(records, protocol, variant)])


def gain(records: Records, protocol: str, row: str, variant: str) -> list[float]:
    """Per seed: AP below 16 px of a row less that of FPN 1x."""
    fpn, own = (records.get((protocol, x, variant), {}) for x in ("fpn_1x", row))
    seeds = sorted(fpn.keys() & own.keys())
    return [metric(own[x], "AP_0_16") - metric(fpn[x], "AP_0_16") for x in seeds]


def recovered(records: Records, protocol: str, row: str, variant: str) -> list[float]:
    """Per seed: the share of FPN 2x's gain over FPN 1x in AP below 16 px that a row has, in %."""
    one, two, own = (records.get((protocol, x, variant), {}) for x in ("fpn_1x", "fpn_2x", row))
    shares = []
    for seed in sorted(one.keys() & two.keys() & own.keys()):
        low, high, value = (metric(x[seed], "AP_0_16") for x in (one, two, own))
        if high > low:
            shares.append(100 * (value - low) / (high - low))
    return shares


def render_recovered(records: Records, protocol: str) -> str:
    """Of all rows and both variants."""
    variants = sorted({variant for own, _, variant in records if own == protocol})
    lines = [f"| row | {' | '.join(variants)} |", "|" + "---|" * (1 + len(variants))]
    for name, row in ROWS.items():
        cells = [recovered(records, protocol, name, variant) for variant in variants]
        if any(cells) and name in (*SHOWN, *SLIM) and name not in ("fpn_1x", "fpn_2x"):
            texts = [f"{mean_and_spread(c)} % ({len(c)})" if c else NOT_RUN for c in cells]
            lines.append(f"| {row.title} | {' | '.join(texts)} |")
    return "\n".join(lines)


def render_cost(record: dict[str, Any]) -> str:
    """Multiply-accumulates of backbone and pyramid."""
    rows = record["rows"]
    lines = [
        f"Backbone and pyramid on a {record['size']} px image, multiply-accumulates counted by "
        f"fvcore (commit {record['commit'][:7]}):",
        "",
        "| | 10^9 | of FPN's |",
        "|---|---|---|",
    ]
    for name, row in rows.items():
        lines.append(f"| {name} | {row['gmacs']} | {row['gmacs'] / rows['FPN']['gmacs']:.2f} x |")
    return "\n".join(lines)


def render_curves(records: Records, protocol: str, variant: str) -> str:
    """Draw the curves of a protocol and variant; the link to them."""
    runs = {
        ROWS[row].title: list(records[protocol, row, variant].values())
        for row in CURVES
        if (protocol, row, variant) in records
    }
    if not runs:
        return f"({NOT_RUN})"
    file = ROOT / "results" / f"curves_{protocol}_{variant}.png"
    # In training the evaluator counts in pixels of the files.
    factor = pixels_per_student_pixel(variant)
    panels = {}
    for low, high in size_bins(protocol)[:3]:
        label = SizeBin(low * factor, high * factor).label
        panels[f"AP_{label}"] = f"objects of {low:g} " + (
            "px and more" if math.isinf(high) else f"to {high:g} px"
        )
    write_training_curves(file, runs, panels)
    return f"![AP over the iterations, {variant}](results/{file.name})"


def read_record(name: str) -> dict[str, Any]:
    """A record of benchmarks/results."""
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def render_value(
    records: Records, protocol: str, row: str, variant: str, name: str, others: Sequence[str] = ()
) -> str:
    """One number of a sentence, of the seeds that all of ``others`` have, too."""
    seeds = set.intersection(
        *(set(records.get((protocol, x, variant), {})) for x in (row, *others))
    )
    own = {key: {s: run for s, run in runs.items() if s in seeds} for key, runs in records.items()}
    runs = own.get((protocol, row, variant), {}).values()
    if name == "seeds":
        return str(len(runs))
    if name == "recovered":
        return mean_and_spread(recovered(own, protocol, row, variant))
    if name == "gain":
        return mean_and_spread(gain(own, protocol, row, variant), sign="+")
    return mean_and_spread([metric(run, name) for run in runs])


def render(template: str, records: Records) -> str:
    """The template with everything filled in."""
    speed = load_speed_records(ROOT / "results" / "speed")
    blocks: dict[str, Callable[..., str]] = {
        "table": lambda *a: render_table(records, *a),
        "slim": lambda *a: render_table(records, *a, SLIM),
        "recovered": lambda *a: render_recovered(records, *a),
        "curves": lambda *a: render_curves(records, *a),
        "options": lambda *a: render_options(records, *a),
        "equal_cost": lambda *a: render_equal_cost(records, *a),
        "equal_cost_figure": lambda *a: render_equal_cost_figure(records, *a),
        "cost": lambda name: render_cost(read_record(name)),
        "speed": lambda name: render_speed(read_record(f"speed/{name}")),
        "parts": lambda name: render_parts(read_record(f"speed/parts/{name}")),
        "targets": lambda size, device: render_targets(speed, int(size), device),
        "growth": lambda device: render_growth(speed, "ResNet-50", device),
        "loading": lambda name: render_loading(read_record(name)),
        "lazy": lambda name: render_lazy_accuracy(read_record(name)),
        "train_step": lambda name: render_train_step(read_record(f"train_step/{name}")),
        "detector_steps": lambda name: render_detector_steps(read_record(f"train_step/{name}")),
        "assignment": lambda name: render_assignment(read_record(name)),
        "gpu_check": lambda name: render_gpu_check(read_record(name)),
    }

    def block(match: re.Match[str]) -> str:
        kind, *arguments = match[1].split()
        try:
            return blocks[kind](*arguments)
        except FileNotFoundError:
            return f"({NOT_RUN})"

    def value(match: re.Match[str]) -> str:
        wanted, *others = match[1].split(" with ")
        return render_value(records, *wanted.split(), others=" ".join(others).split())

    text = re.sub(rf"<!-- ((?:{'|'.join(blocks)}) [^>]*?) -->", block, template)
    return re.sub(r"\[\[([^\]]+)\]\]", value, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "ablation")
    parser.add_argument("--output", type=Path, default=ROOT / "RESULTS.md")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    args = parser.parse_args()
    text = render((ROOT / "RESULTS.template.md").read_text(), load_records(args.results))
    if not args.check:
        args.output.write_text(text)
    elif args.output.read_text() != text:
        sys.exit("RESULTS.md is not what benchmarks/render_results.py writes: run it and commit.")


if __name__ == "__main__":
    main()
