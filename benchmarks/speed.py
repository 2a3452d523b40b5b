#!/usr/bin/env python
"""Times as ratios to stock FPN's: of whole detectors, or of backbones with what can be inserted.

All run in turns in one process, round after round, and each is compared with FPN in the same
round, so that what else the machine does touches all alike. Peak memory is the CUDA allocator's; on
the CPU it is the resident set of a process of its own for each, beyond what it had before the first
image. Writes a record in benchmarks/results.

    benchmarks/speed.py backbones --name speed_cpu --threads 1
    benchmarks/speed.py detectors --name speed/R_50_800_cpu --memory
    benchmarks/speed.py detectors --name speed/R_50_800_gpu --device cuda --precision float16
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectors import DETECTORS, build_detector, make_run
from layer_costs import count_macs, time_layers
from pyramids import BASELINE, PYRAMIDS, build_pyramid
from records import RESULTS
from shares import shares_computed
from timing import MEMORY_ENVIRONMENT, summarize, time_in_turns, time_once
from torch import nn

import efpn_d2
from efpn_d2.utils.run_record import collect_run_record, peak_memory_gib, write_record
from efpn_d2.utils.tool_support import not_negative, positive

CONFIG = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"
PRECISIONS = ("float32", "bfloat16", "float16")
KINDS: dict[str, dict[str, Any]] = {"backbones": PYRAMIDS, "detectors": DETECTORS}
Run = Callable[[], object]


def prepare(name: str, args: argparse.Namespace) -> tuple[nn.Module, Run]:
    """The model of that name, and a call that runs it once."""
    if args.kind == "detectors":
        detector = DETECTORS[name]
        model = build_detector(args.config, detector, args.size, args.device, args.opts)
        if args.channels_last:
            model.to(memory_format=torch.channels_last)
        return model, make_run(model, detector, args.size, args.batch)
    pyramid = PYRAMIDS[name]
    backbone = build_pyramid(args.config, pyramid, args.device, args.opts)
    if args.channels_last:
        backbone.to(memory_format=torch.channels_last)
    side = pyramid.scale * args.size
    images = torch.randn(args.batch, 3, side, side, device=args.device)
    return backbone, lambda: backbone(images)


def backbone_name(config: str, options: Sequence[str]) -> str:
    """What people call the bottom-up network of a config."""
    cfg = efpn_d2.get_config(config)
    cfg.merge_from_list(list(options))
    node = cfg.MODEL.RESNETS
    if node.NUM_GROUPS == 1:
        return f"ResNet-{node.DEPTH}"
    return f"ResNeXt-{node.DEPTH} {node.NUM_GROUPS}x{node.WIDTH_PER_GROUP}d"


@contextmanager
def inference_in(precision: str, device: str) -> Iterator[None]:
    """Inference with autocast to ``precision``, which is one of ``PRECISIONS``."""
    dtype = getattr(torch, precision)
    autocast = torch.autocast(device.split(":")[0], dtype, enabled=dtype != torch.float32)
    with torch.inference_mode(), autocast:
        yield


def measure_memory(args: argparse.Namespace, name: str) -> float:
    """GiB that a run needs beyond the model."""
    if args.device.startswith("cuda"):
        _, run = prepare(name, args)
        before = torch.cuda.memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
        run()
        return round(peak_memory_gib(args.device) - before, 3)
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
    return float(subprocess.run(command, check=True, capture_output=True).stdout.split()[-1])


def print_memory(args: argparse.Namespace) -> None:
    """What a process of its own does for :func:`measure_memory`."""
    _, run = prepare(args.memory_of, args)
    before = peak_memory_gib()
    run()
    print(round(peak_memory_gib() - before, 3))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--config", default=CONFIG, help="a packaged config")
    parser.add_argument("--size", type=positive, default=800, help="side of the image in pixels")
    parser.add_argument("--batch", type=positive, default=1, help="images in each run")
    parser.add_argument("--rounds", type=positive, default=20)
    parser.add_argument("--warmup", type=not_negative, default=2, help="rounds that do not count")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--channels-last", action="store_true", help="order of maps in memory")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", help="names of what to time; FPN is always")
    parser.add_argument("--memory", action="store_true", help="measure peak memory, too")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument(
        "--parts", type=not_negative, default=0, help="runs that time the layers of each part (CPU)"
    )
    parser.add_argument("--name", required=True, help="of the record in benchmarks/results")
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY VALUE", help="to change the config by"
    )
    return parser


def main() -> None:
    parser = build_parser()
    args = parser.parse_args()
    if args.parts and args.device != "cpu":
        parser.error("--parts times layers on the CPU only: leave it or --device out.")
    unknown = set(args.only or ()) - KINDS[args.kind].keys()
    if unknown:
        parser.error(f"--only {sorted(unknown)}: choose from {list(KINDS[args.kind])}")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with inference_in(args.precision, args.device):
        if args.memory_of:
            print_memory(args)
            return
        rows = measure(args)
    for name, row in rows.items():
        low, high = row["ratio_quartiles"]
        print(f"{name:>42}: {row['seconds']:.4f} s, {row['ratio']:.3f} x ({low:.3f} to {high:.3f})")
    names = (
        "kind",
        "config",
        "opts",
        "size",
        "batch",
        "device",
        "precision",
        "channels_last",
        "threads",
    )
    setup = {name: getattr(args, name) for name in (*names, "rounds")}
    setup["backbone"] = backbone_name(args.config, args.opts)
    setup["environment"] = {k: v for k, v in os.environ.items() if k.startswith(MEMORY_ENVIRONMENT)}
    write_record(RESULTS / f"{args.name}.json", {**collect_run_record(0), **setup, "rows": rows})


def measure(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Times, multiply-accumulates, the share of P'2 computed and, if asked for, memory."""
    names = list(dict.fromkeys([BASELINE, *(args.only or KINDS[args.kind])]))
    runs, macs, shares, parts = {}, {}, {}, {}
    for name in names:
        model, runs[name] = prepare(name, args)
        time_once(runs[name], args.device)  # a lazy detector looks at its modules first
        shares[name] = []
        with shares_computed(shares[name]):
            macs[name] = count_macs(model, runs[name])
            if args.parts:
                parts[name] = time_layers(model, runs[name], args.parts)
    rows = summarize(time_in_turns(runs, args.rounds, args.warmup, args.device), BASELINE)
    for name, row in rows.items():
        row["gmacs"] = macs[name]
        if shares[name]:
            row["p2_prime_share"] = round(shares[name][-1], 3)
        if args.parts:
            row["part_seconds"] = parts[name]
        if args.memory:
            row["memory_gib"] = measure_memory(args, name)
    return rows


if __name__ == "__main__":
    main()
