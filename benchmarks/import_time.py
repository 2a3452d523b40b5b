#!/usr/bin/env python
"""The CPU time of ``import efpn_d2``, beside Detectron2's own imports.

Each is a new process of this interpreter, in turns. Writes benchmarks/results/import_cpu.json.

    benchmarks/import_time.py
"""

import argparse
import subprocess
import sys
from collections.abc import Callable

import torch
from records import RESULTS
from timing import cpu_seconds_of_children, summarize, time_in_turns

from efpn_d2.utils.run_record import collect_run_record, write_record
from efpn_d2.utils.tool_support import not_negative, positive

BASELINE = "import detectron2"
MODELING = "import detectron2.modeling"
STATEMENTS = (BASELINE, MODELING, "import efpn_d2")


def make_run(statement: str) -> Callable[[], object]:
    """A call that executes a statement in a new interpreter."""
    command = [sys.executable, "-W", "ignore", "-c", statement]
    return lambda: subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--warmup", type=not_negative, default=1, help="rounds that do not count")
    parser.add_argument("--name", default="import_cpu", help="of the record in benchmarks/results")
    args = parser.parse_args()
    seconds = time_in_turns(
        {x: make_run(x) for x in STATEMENTS},
        args.rounds,
        args.warmup,
        clock=cpu_seconds_of_children,
    )
    rows = summarize(seconds, BASELINE)
    of_modeling = summarize(seconds, MODELING)
    for name, row in rows.items():
        row["ratio_to_modeling"] = of_modeling[name]["ratio"]
        print(f"{name:>30}: {row['seconds']:.2f} s, {row['ratio']:.3f} x")
    setup = {"rounds": args.rounds, "threads": torch.get_num_threads()}
    write_record(RESULTS / f"{args.name}.json", {**collect_run_record(0), **setup, "rows": rows})


if __name__ == "__main__":
    main()
