#!/usr/bin/env python
"""Time of one forward pass of backbone and pyramid, as ratios to stock FPN's.

All variants run in turns in one process, round after round, and each is compared with FPN in the
same round, so that what else the machine does touches all alike. Writes a record in
benchmarks/results.

    benchmarks/speed.py --name speed_cpu --threads 1
    benchmarks/speed.py --name speed_gpu --device cuda --precision float16
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from variants import VARIANTS, build_variant

from efpn_d2.run_record import collect_run_record, write_json

RESULTS = Path(__file__).resolve().parent / "results"
CONFIG = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"
BASELINE = "FPN"
PRECISIONS = ("float32", "bfloat16", "float16")


def time_once(model: nn.Module, image: Tensor) -> float:
    """Seconds of one pass."""
    synchronize(image.device)
    start = time.perf_counter()
    model(image)
    synchronize(image.device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_in_turns(
    models: dict[str, nn.Module], images: dict[str, Tensor], rounds: int, warmup: int
) -> dict[str, list[float]]:
    """Seconds of each model in each round, the warm-up left out.

    Every second round runs in reverse order, so that none is always the one after the same.
    """
    seconds: dict[str, list[float]] = {name: [] for name in models}
    start = time.perf_counter()
    for i in range(warmup + rounds):
        order = list(models) if i % 2 else list(reversed(models))
        for name in order:
            taken = time_once(models[name], images[name])
            if i >= warmup:
                seconds[name].append(taken)
        left = (time.perf_counter() - start) / (i + 1) * (warmup + rounds - i - 1)
        print(f"round {i + 1} of {warmup + rounds}, {left:.0f} s left", flush=True)
    return seconds


def summarize(seconds: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Of each model the median seconds, and median and quartiles of its ratios to the baseline."""
    rows = {}
    for name, own in seconds.items():
        ratios = [x / base for x, base in zip(own, seconds[BASELINE], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        rows[name] = {
            "seconds": round(statistics.median(own), 4),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_quartiles": [round(low, 3), round(high, 3)],
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=CONFIG, help="a packaged config")
    parser.add_argument("--size", type=int, default=800, help="side of the image in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=2, help="rounds that do not count")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--name", default="speed_cpu", help="of the record in benchmarks/results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    names = list(dict.fromkeys([BASELINE, *args.variants]))
    models = {name: build_variant(args.config, VARIANTS[name], args.device) for name in names}
    images = {}
    for name in names:
        side = VARIANTS[name].scale * args.size
        images[name] = torch.randn(args.batch, 3, side, side, device=args.device)
    precision = getattr(torch, args.precision)
    autocast = torch.autocast(args.device, precision, enabled=precision != torch.float32)
    with torch.inference_mode(), autocast:
        rows = summarize(time_in_turns(models, images, args.rounds, args.warmup))
    for name, row in rows.items():
        low, high = row["ratio_quartiles"]
        print(f"{name:>42}: {row['seconds']:.4f} s, {row['ratio']:.3f} x ({low:.3f} to {high:.3f})")
    setup = {k: getattr(args, k) for k in ("config", "size", "batch", "device", "precision")}
    setup |= {"threads": args.threads, "rounds": args.rounds, "rows": rows}
    write_json(RESULTS / f"{args.name}.json", {**collect_run_record(0), **setup})


if __name__ == "__main__":
    main()
