#!/usr/bin/env python
"""Write the figures of README and docs from the committed records in benchmarks/results."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from render_evaluation import render_speed
from render_mapping import render_levels, render_noise

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from render_results import load_records, render_table  # noqa: E402  of that folder
from speed_tables import render_speed as render_detectors  # noqa: E402

SPEED = "R_50_800_cpu"  # the record of whole detectors that the README shows
# The rows of the ablation that the README shows.
EVIDENCE = (
    "fpn_1x",
    "fpn_2x",
    "efpn",
    "efpn_tuned_teacher",
    "paper_add_on",
    "efpn_without_distillation",
    "scratch_rpn",
    "scratch_rpn_sgdm",
    "slim",
)


def render_demo(records: Sequence[dict[str, Any]]) -> str:
    """The block about ``make demo``, from the ``results.json`` that it wrote on each machine."""
    metrics = records[0]["metrics"]
    bins = [key.removeprefix("AP_") for key in metrics if key.startswith("AP_")]
    names = [b.replace("_inf", " px and more").replace("_", " to ") for b in bins]
    names = [name if "px" in name else f"{name} px" for name in names]
    header = ["on", "AP50", "AP", *(f"AP, {name}" for name in names), "minutes after set-up"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for record in records:
        machine, own = record["hardware"], record["metrics"]
        values = [own[key] for key in ("AP50", "AP", *(f"AP_{b}" for b in bins))]
        device = ", ".join(map(str, machine["gpus"])) or f"{machine['cpu']}, no GPU"
        cells = [f"{device}, {machine['cpu_cores']} cores"]
        cells += ["n/a" if v is None else f"{v:.1f}" for v in values]
        cells.append(f"{sum(record['seconds'].values()) / 60:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    versions = sorted({f"torch {record['versions']['torch']}" for record in records})
    commits = ", ".join(record["commit"][:7] for record in records)
    return "\n".join(
        [
            f"Expected of `make demo`, on {records[0]['val_images']} unseen images with objects of "
            "4 to 64 px (size: square root of the area):",
            "",
            *lines,
            "",
            f"With {', '.join(versions)}, seed {records[0]['seed']}, at commits "
            f"{commits}. Rounding differs from CPU to CPU, which in so short a training is worth "
            "some points of AP; on the same CPU they repeat.",
            "",
            "It ends by printing where the image sheet, `output/demo/sheet.png`, and all numbers, "
            "`output/demo/results.json`, are. Run again, it goes on where it was stopped.",
        ]
    )


def render_cost(record: dict[str, Any]) -> str:
    """The table of what the extended level costs, from ``benchmarks/cost.py``'s record."""
    rows = record["rows"]
    base = rows["FPN"]["gmacs"]
    lines = [
        f"Backbone and pyramid of ResNet-50 on a {record['size']} x {record['size']} image "
        f"(counted by fvcore, commit {record['commit'][:7]}):",
        "",
        "| | parameters (M) | multiply-accumulates (10^9) | of FPN's |",
        "|---|---|---|---|",
    ]
    for name, row in rows.items():
        ratio = row["gmacs"] / base
        lines.append(f"| {name} | {row['parameters_m']} | {row['gmacs']} | {ratio:.2f} x |")
    return "\n".join(lines)


def render_evidence(folder: Path) -> str:
    """The key rows of the ablation's tiny protocol, from its records."""
    return render_table(load_records(folder), "tiny", "native1x", EVIDENCE)


def replace_block(text: str, name: str, content: str) -> str:
    """``text`` with what stands between the comments ``name:begin`` and ``name:end`` replaced.

    Raises:
        ValueError: the comments are not there.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in text or end not in text:
        raise ValueError(f"The file needs the lines '{begin}' and '{end}' around that block.")
    head, rest = text.split(begin, 1)
    tail = rest.split(end, 1)[1]
    return f"{head}{begin}\n{content}\n{end}{tail}"


def rendered(root: Path = ROOT) -> str:
    """The README as it should be."""
    renderers = {"cost": render_cost, f"speed/{SPEED}": render_detectors}
    text = fill(root, "README.md", renderers)
    results = root / "benchmarks/results"
    demos = [json.loads(file.read_text()) for file in sorted(results.glob("demo/*.json"))]
    text = replace_block(text, "demo", render_demo(demos))
    return replace_block(text, "evidence", render_evidence(results / "ablation"))


def rendered_mapping(root: Path = ROOT) -> str:
    """docs/paper_mapping.md as it should be."""
    renderers = {"level_gradients": render_levels, "sgdm_noise": render_noise}
    return fill(root, "docs/paper_mapping.md", renderers)


def rendered_evaluation(root: Path = ROOT) -> str:
    """docs/evaluation.md as it should be."""
    return fill(root, "docs/evaluation.md", {"evaluation_speed": render_speed})


def fill(root: Path, file: str, renderers: dict[str, Callable[[dict[str, Any]], str]]) -> str:
    """The file with each named block made from the record of that name."""
    text = (root / file).read_text()
    for name, render in renderers.items():
        record = json.loads((root / f"benchmarks/results/{name}.json").read_text())
        text = replace_block(text, name, render(record))
    return text


DOCUMENTS = {
    "README.md": rendered,
    "docs/paper_mapping.md": rendered_mapping,
    "docs/evaluation.md": rendered_evaluation,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    args = parser.parse_args()
    for name, render in DOCUMENTS.items():
        file = ROOT / name
        if not args.check:
            file.write_text(render())
        elif file.read_text() != render():
            sys.exit(f"{name} is not what tools/render_readme.py writes: run it and commit.")


if __name__ == "__main__":
    main()
