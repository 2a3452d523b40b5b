"""Where a detector's time goes: arithmetic and seconds of its layers by part."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["OUTSIDE", "count_macs", "time_layers"]

OUTSIDE = "outside of layers"
"""RoIAlign, non-maximum suppression, additions, shuffles, copies of tiles."""
Run = Callable[[], object]


def count_macs(model: nn.Module, run: Run) -> dict[str, float]:
    """10^9 multiply-accumulates of convolutions and linear layers in one run, by part."""
    macs: dict[str, float] = {}

    def count(part: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> None:
            """Each weight is used once for each cell or row of the output."""
            cells = output.numel() / layer.weight.shape[0]
            macs[part] = macs.get(part, 0.0) + layer.weight.numel() * cells / 1e9

        return hook

    hooks = [layer.register_forward_hook(count(part)) for part, layer in layers(model)]
    run()
    for hook in hooks:
        hook.remove()
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

    def start(*_: Any) -> None:
        """Called before a layer."""
        started.append(time.perf_counter())

    def stop(part: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            """Called after a layer."""
            seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started.pop()

        return hook

    hooks = []
    for part, layer in layers(model):
        hooks += [layer.register_forward_pre_hook(start), layer.register_forward_hook(stop(part))]
    before = time.perf_counter()
    run()
    total = time.perf_counter() - before
    for hook in hooks:
        hook.remove()
    return {**seconds, OUTSIDE: total - sum(seconds.values())}


def layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Convolutions and linear layers, each after the part that it belongs to."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            yield part_of(name), module


def part_of(name: str) -> str:
    """The part of a detector that a module belongs to."""
    first, *rest = name.split(".")
    if first != "backbone":
        return first
    return rest[0] if rest[0] in ("bottom_up", "extension", "enhancement") else "fpn"
