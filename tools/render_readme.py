#!/usr/bin/env python
"""Write the numbers in README and docs from the records in benchmarks/results."""

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

from ablation_records import mean_and_spread  # noqa: E402  of that folder
from equal_cost import SLIM, SPEED, WIDE, make_points, multiple  # noqa: E402
from render_results import load_records  # noqa: E402
from speed_tables import render_speed as render_detectors  # noqa: E402

# The detectors of the equal-cost comparison that the README shows.
SUMMARY = ("FPN 1x", "FPN + SGDM 1x", SLIM, WIDE, "EFPN, the paper's recipe", "FPN 2x")


def render_summary(root: Path) -> str:
    """Render AP in the tiny protocol beside CPU time, from the records of both."""
    results = root / "benchmarks/results"
    speed = json.loads((results / f"{SPEED}.json").read_text())
    points = make_points(load_records(results / "ablation"), "tiny", "native1x", speed)
    heads = ["", "AP, objects below 16 px", "AP, 16 px and more", "CPU time, of FPN's", "memory"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name in SUMMARY:
        point = points[name]
        cells = [mean_and_spread(list(point.values(x).values())) for x in ("AP_0_16", "AP_16_inf")]
        cells += [multiple(point.time), multiple(point.memory)]
        lines.append(f"| {' | '.join([name, *cells])} |")
    lines += [
        "",
        "AP: synthetic images, ResNet-18 from scratch, as many iterations each; mean and standard "
        "deviation over the seeds. Time and memory: the same detectors with ResNet-50 on an image "
        "of 800 px.",
    ]
    return "\n".join(lines)


def render_demo(records: Sequence[dict[str, Any]]) -> str:
    """Render the section on ``make demo`` from the ``results.json`` of each machine."""
    lines = ["| on | AP50 | AP, 0 to 8 px | AP, 8 to 16 px | minutes |", "|---|---|---|---|---|"]
    for record in records:
        machine, own = record["hardware"], record["metrics"]
        device = ", ".join(map(str, machine["gpus"])) or f"{machine['cpu']}, no GPU"
        cells = [f"{device}, {machine['cpu_cores']} cores"]
        cells += [f"{own[key]:.1f}" for key in ("AP50", "AP_0_8", "AP_8_16")]
        cells.append(f"{sum(record['seconds'].values()) / 60:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            f"Expected of `make demo` on {records[0]['val_images']} unseen images, up to rounding, "
            "which differs between CPUs. It prints where the image sheet and all numbers are.",
            "",
            *lines,
        ]
    )


def render_cost(record: dict[str, Any]) -> str:
    """Render the cost of the extended level, recorded by ``benchmarks/cost.py``."""
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


def replace_block(text: str, name: str, content: str) -> str:
    """Replace the text between the comments ``name:begin`` and ``name:end``.

    Raises:
        ValueError: if the comments are missing.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in text or end not in text:
        raise ValueError(f"The file needs the lines '{begin}' and '{end}' around that block.")
    head, rest = text.split(begin, 1)
    tail = rest.split(end, 1)[1]
    return f"{head}{begin}\n{content}\n{end}{tail}"


def rendered(root: Path = ROOT) -> str:
    """Render the README."""
    demos = sorted((root / "benchmarks/results/demo").glob("*.json"))
    text = (root / "README.md").read_text()
    text = replace_block(text, "demo", render_demo([json.loads(x.read_text()) for x in demos]))
    return replace_block(text, "summary", render_summary(root))


def rendered_speed(root: Path = ROOT) -> str:
    """Render docs/speed.md."""
    return fill(root, "docs/speed.md", {"cost": render_cost, SPEED: render_detectors})


def rendered_mapping(root: Path = ROOT) -> str:
    """Render docs/paper_mapping.md."""
    renderers = {"level_gradients": render_levels, "sgdm_noise": render_noise}
    return fill(root, "docs/paper_mapping.md", renderers)


def rendered_evaluation(root: Path = ROOT) -> str:
    """Render docs/evaluation.md."""
    return fill(root, "docs/evaluation.md", {"evaluation_speed": render_speed})


def fill(root: Path, file: str, renderers: dict[str, Callable[[dict[str, Any]], str]]) -> str:
    """Return the file with each named block rendered from the record of that name."""
    text = (root / file).read_text()
    for name, render in renderers.items():
        record = json.loads((root / f"benchmarks/results/{name}.json").read_text())
        text = replace_block(text, name, render(record))
    return text


DOCUMENTS = {
    "README.md": rendered,
    "docs/speed.md": rendered_speed,
    "docs/paper_mapping.md": rendered_mapping,
    "docs/evaluation.md": rendered_evaluation,
}


def main() -> None:
    """Write the files, or only check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="only check whether the files are up to date"
    )
    args = parser.parse_args()
    for name, render in DOCUMENTS.items():
        file = ROOT / name
        if not args.check:
            file.write_text(render())
        elif file.read_text() != render():
            sys.exit(
                f"{name} differs from the output of tools/render_readme.py: run it and commit."
            )


if __name__ == "__main__":
    main()
