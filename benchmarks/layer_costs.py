"""Where a detector's time goes: arithmetic and seconds of its layers by part."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

OUTSIDE = "outside of layers"
"""RoIAlign, non-maximum suppression, additions, shuffles, copies of tiles."""
LABEL = "benchmark_part"
Run = Callable[[], object]


def count_macs(model: nn.Module, run: Run) -> dict[str, float]:
    """10^9 multiply-accumulates of convolutions and linear layers in one run, by part."""
    macs: dict[str, float] = {}

    def count(layer: nn.Module, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> None:
        """Each weight is used once for each cell or row of the output."""
        part = getattr(layer, LABEL, None)
        if part is not None:
            cells = output.numel() / layer.weight.shape[0]
            macs[part] = macs.get(part, 0.0) + layer.weight.numel() * cells / 1e9

    with labelled(model), register_module_forward_hook(count):
        run()
    return {part: round(value, 2) for part, value in macs.items()}


def time_layers(model: nn.Module, run: Run, times: int) -> dict[str, float]:
    """Seconds in convolutions (with their normalisation) and linear layers by part, and outside.

    On the CPU, where a layer is done when its call returns. The medians of several runs.
    """
    runs = [time_layers_once(model, run) for _ in range(times)]
    parts = dict.fromkeys(part for own in runs for part in own)
    return {x: round(statistics.median(own.get(x, 0.0) for own in runs), 4) for x in parts}


def time_layers_once(model: nn.Module, run: Run) -> dict[str, float]:
    """Seconds of one run by part."""
    seconds: dict[str, float] = {}
    started: list[float] = []

    def start(layer: nn.Module, *_: Any) -> None:
        """Called before each module."""
        if hasattr(layer, LABEL):
            started.append(time.perf_counter())

    def stop(layer: nn.Module, *_: Any) -> None:
        """Called after each module."""
        part = getattr(layer, LABEL, None)
        if part is not None:
            seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started.pop()

    with (
        labelled(model),
        register_module_forward_pre_hook(start),
        register_module_forward_hook(stop),
    ):
        before = time.perf_counter()
        run()
        total = time.perf_counter() - before
    return {**seconds, OUTSIDE: total - sum(seconds.values())}


@contextmanager
def labelled(model: nn.Module) -> Iterator[None]:
    """Write on each convolution and linear layer the part that it belongs to.

    Copies of a layer, which inference may run in its place, have the label too. A hook of the layer
    itself would keep it from being copied.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    for name, layer in layers.items():
        setattr(layer, LABEL, part_of(name))
    try:
        yield
    finally:
        for layer in layers.values():
            delattr(layer, LABEL)


def part_of(name: str) -> str:
    """The part of a detector that a module belongs to."""
    first, *rest = name.split(".")
    if first != "backbone":
        return first
    return rest[0] if rest[0] in ("bottom_up", "extension", "enhancement") else "fpn"
