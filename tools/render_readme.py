#!/usr/bin/env python
"""Write the figures of README and docs from the committed records in benchmarks/results."""

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

# The detectors of the comparison at equal cost that the README shows.
SUMMARY = ("FPN 1x", "FPN + SGDM 1x", SLIM, WIDE, "EFPN, the paper's recipe", "FPN 2x")


def render_summary(root: Path) -> str:
    """AP of the tiny protocol beside CPU time, from the records of both."""
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
    """The block about ``make demo``, from the ``results.json`` that it wrote on each machine."""
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
    demos = sorted((root / "benchmarks/results/demo").glob("*.json"))
    text = (root / "README.md").read_text()
    text = replace_block(text, "demo", render_demo([json.loads(x.read_text()) for x in demos]))
    return replace_block(text, "summary", render_summary(root))


def rendered_speed(root: Path = ROOT) -> str:
    """docs/speed.md as it should be."""
    return fill(root, "docs/speed.md", {"cost": render_cost, SPEED: render_detectors})


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
    "docs/speed.md": rendered_speed,
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
