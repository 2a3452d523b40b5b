"""Record how a result was obtained: code, versions, machine, seed, command and time."""

import contextlib
import importlib.metadata
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from efpn_d2.utils.files import write_atomically
from efpn_d2.utils.size_labels import size_label

_DISTRIBUTIONS = ("torch", "torchvision", "detectron2", "fvcore", "pycocotools", "numpy")
_PACKAGE_DIR = Path(__file__).resolve().parent


def collect_run_record(seed: int, command: Sequence[str] | None = None) -> dict[str, Any]:
    """Describe this process with all that is needed to repeat it and to interpret its times.

    Args:
        seed: the run's base seed.
        command: the command line as a list; None: this process's own.

    Returns:
        A dict of JSON types with the keys "date" (UTC), "command", "seed", "commit", "versions" and
        "hardware". Unknown values are None.
    """
    if command is None:
        command = ["python", *sys.argv]
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(command),
        "seed": seed,
        "commit": source_commit(),
        "versions": installed_versions(),
        "hardware": describe_hardware(),
    }


def source_commit(folder: str | Path = _PACKAGE_DIR) -> str | None:
    """Return the commit of the source tree that contains ``folder``, with "-dirty" if modified.

    None if it is not a git work tree (an installed package), or git is missing.
    """
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        # A virtual environment inside another repository is not part of that repository.
        _git(folder, "ls-files", "--error-unmatch", ".")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(folder: str | Path, *args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *args], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def installed_versions() -> dict[str, str | None]:
    """Return the versions of Python, this package and its dependencies; None: not installed."""
    from efpn_d2 import __version__

    versions: dict[str, str | None] = {
        "python": platform.python_version(),
        "efpn_d2": __version__,
        "cuda": torch.version.cuda,
    }
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            # An unpacked source tree on the path has no metadata, but usually a version.
            versions[name] = getattr(sys.modules.get(name), "__version__", None)
    return versions


def describe_hardware() -> dict[str, Any]:
    """Return the processor, usable cores, memory in GiB and GPUs of this machine."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_name(),
        "cpu_cores": _usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _cpu_name() -> str | None:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or None


def _usable_cores() -> int | None:
    """Return the number of cores available to this process, which a container may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_gib() -> float | None:
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return None


def peak_memory_gib(device: str = "cpu") -> float:
    """Return the peak memory in GiB of the CUDA allocator or, on a CPU, of this process."""
    if device.startswith("cuda"):
        return round(torch.cuda.max_memory_allocated() / 2**30, 3)
    # ru_maxrss would start at the value of the parent process.
    with contextlib.suppress(OSError), open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith("VmHWM"):
                return round(int(line.split()[1]) / 2**20, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)


@contextlib.contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Add the wall time of a ``with`` block to ``seconds[phase]``."""
    start = time.perf_counter()
    try:
        yield
    finally:
        elapsed = time.perf_counter() - start
        seconds[phase] = round(seconds.get(phase, 0.0) + elapsed, 1)


def headline(metrics: dict[str, float]) -> str:
    """Format AP50, AP and the AP of each size bin as lines of text.

    Args:
        metrics: result of :class:`efpn_d2.evaluation.SizeBinnedCOCOEvaluator` for "bbox" or "segm".
    """
    rows = [f"AP50 {metrics['AP50']:.1f}   AP {metrics['AP']:.1f}   by sqrt(area) of the object:"]
    for key in metrics:
        if key.startswith("AP_"):
            _, low, high = key.split("_")
            size = size_label(float(low), float(high))
            rows.append(f"{size:>16}: AP {metrics[key]:5.1f}")
    return "\n".join(rows)


def write_record(path: str | Path, content: dict[str, Any]) -> None:
    """Write indented JSON atomically; its folder is created if needed.

    Values that are not finite become null, since JSON cannot represent them.
    """
    text = json.dumps(_finite(content), indent=2, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return float(value) if abs(value) < float("inf") else None
    return value
