#!/usr/bin/env python
"""Check the package on a CUDA card, in minutes: tests, mixed precision, speed, torch.compile.

Each step runs in a process of its own, so that one that fails or hangs stops no other. What does
not fit into the time any more is left out, and the record says so. Exits with 0 if all passed, with
1 if something failed or was left out, with 2 if there is no card.

    benchmarks/gpu_check.py
    benchmarks/gpu_check.py --only train "speed batch 8" --output part.json
    benchmarks/gpu_check.py --device cpu --dry-run --output dry.json
"""

import argparse
import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from gpu_check_steps import CONFIG, DRY, FULL, Scale, Step, make_steps
from records import RESULTS
from speed import backbone_name

from efpn_d2.utils.run_record import collect_run_record, write_record

OUTPUT = RESULTS / "gpu_check.json"
PRELOADED = ["torch", "detectron2.modeling", "detectron2.engine", "efpn_d2.engine"]
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
Outcome = dict[str, Any]


def attempt(step: Step) -> Outcome:
    """What came of a step: its result, or in one line why it has none."""
    try:
        return {"outcome": PASSED, "result": step.run()}
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        return {"outcome": FAILED, "reason": f"{type(error).__name__}: {first}"[:200]}


def report(step: Step, sender: Connection) -> None:
    """What the process of a step does."""
    os.setsid()  # a group of its own, which ends with all that the step started
    sender.send(attempt(step))


def attempt_apart(step: Step, seconds: float) -> Outcome:
    """:func:`attempt` in a process of its own, which is ended after so many seconds."""
    # Its server has imported everything and never touched the card: a process is there at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=report, args=(step, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            return {"outcome": FAILED, "reason": f"it was ended after {seconds:.0f} s"}
        return receiver.recv()
    except EOFError:
        process.join()
        return {"outcome": FAILED, "reason": f"its process ended with {process.exitcode}"}
    finally:
        end(process)


def end(process: BaseProcess) -> None:
    """End a process, if it still runs, and what it started."""
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()  # where it had no group yet
    process.join()


def run_steps(
    steps: Sequence[Step],
    seconds: float,
    save: Callable[[list[Outcome]], None],
    execute: Callable[[Step, float], Outcome] = attempt_apart,
) -> list[Outcome]:
    """The outcome of each step, in their order.

    Args:
        steps: what to do.
        seconds: for all of them. A step is skipped if less is left than it needs.
        save: called with the outcomes so far after each step.
        execute: what runs a step, in at most that many seconds.
    """
    deadline = time.monotonic() + seconds
    outcomes: list[Outcome] = []
    for number, step in enumerate(steps, start=1):
        start = time.monotonic()
        left = deadline - start
        print(f"== {number} of {len(steps)}: {step.name} ({left:.0f} s left)", flush=True)
        if left < step.least:
            reason = f"{max(left, 0):.0f} s were left, and it may need {step.least:.0f} s"
            outcome = {"outcome": SKIPPED, "reason": reason}
        else:
            outcome = execute(step, min(left, step.most))
        taken = round(time.monotonic() - start, 1)
        outcomes.append({"name": step.name, "kind": step.kind, "seconds": taken, **outcome})
        print(f"   {outcome_text(outcomes[-1])}", flush=True)
        save(outcomes)
    return outcomes


def outcome_text(outcome: Outcome) -> str:
    reason = f": {outcome['reason']}" if "reason" in outcome else ""
    return f"{outcome['outcome']} after {outcome['seconds']:.0f} s{reason}"


def describe(args: argparse.Namespace, scale: Scale) -> dict[str, Any]:
    """What the record says beside the outcomes."""
    return {
        **collect_run_record(0),
        **scale._asdict(),
        "backbone": backbone_name(CONFIG, [str(x) for x in scale.opts]),
        "threads": torch.get_num_threads(),
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "dry_run": args.dry_run,
        "minutes": args.minutes,
    }


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="everything very small")
    parser.add_argument("--minutes", type=float, default=8, help="for all steps together")
    parser.add_argument("--only", nargs="+", help="steps with one of these texts in their names")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the record, a JSON file")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    start = time.monotonic()
    parser = build_parser()
    args = parser.parse_args(arguments)
    on_cpu = args.device == "cpu" and args.dry_run
    if not on_cpu and not (args.device.startswith("cuda") and torch.cuda.is_available()):
        print(
            "This check needs a CUDA card; --device cpu --dry-run proves the script itself.",
            file=sys.stderr,
        )
        return 2
    scale = (DRY if args.dry_run else FULL)._replace(device=args.device)
    steps = [s for s in make_steps(scale) if not args.only or any(x in s.name for x in args.only)]
    if not steps:
        parser.error(f"--only {args.only}: choose from {[s.name for s in make_steps(scale)]}")
    description = describe(args, scale)

    def save(outcomes: list[Outcome]) -> None:
        seconds = round(time.monotonic() - start, 1)
        write_record(args.output, {**description, "seconds": seconds, "steps": outcomes})

    outcomes = run_steps(steps, 60 * args.minutes - (time.monotonic() - start), save)
    for outcome in outcomes:
        print(f"{outcome['name']:>42}: {outcome_text(outcome)}")
    print(f"The record is in {args.output}.")
    return int(any(outcome["outcome"] != PASSED for outcome in outcomes))


if __name__ == "__main__":
    # So that the process of a step ends too when this one is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
