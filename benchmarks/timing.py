"""Times of several things that run in turns, as ratios to one of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

MEMORY_ENVIRONMENT = ("MALLOC_", "THP_")  # variables that say how memory is got from the system


def time_once(run: Callable[[], object], device: str) -> float:
    """Seconds of one call."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def time_in_turns(
    runs: Mapping[str, Callable[[], object]], rounds: int, warmup: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each run in each round, the warm-up left out.

    Every second round runs in reverse order, so that none is always the one after the same.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    for i in range(warmup + rounds):
        order = list(runs) if i % 2 else list(reversed(runs))
        for name in order:
            taken = time_once(runs[name], device)
            if i >= warmup:
                seconds[name].append(taken)
        left = (time.perf_counter() - start) / (i + 1) * (warmup + rounds - i - 1)
        print(f"round {i + 1} of {warmup + rounds}, {left:.0f} s left", flush=True)
    return seconds


def summarize(seconds: Mapping[str, list[float]], baseline: str) -> dict[str, dict[str, Any]]:
    """Of each run the median seconds, and median and quartiles of its ratios to ``baseline``."""
    rows = {}
    for name, own in seconds.items():
        ratios = [x / base for x, base in zip(own, seconds[baseline], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        rows[name] = {
            "seconds": round(statistics.median(own), 4),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_quartiles": [round(low, 3), round(high, 3)],
        }
    return rows
