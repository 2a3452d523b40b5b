"""Start the processes of a training, or join those that torchrun has started."""

import argparse
import gc
import os
from collections.abc import Callable
from typing import Any

import torch
from detectron2.engine import launch
from detectron2.utils import comm
from torch import distributed as dist


def launch_or_join(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    """Run ``main(args)`` in every process of the job.

    Under torchrun this process is already one of them, as torchrun's environment says; otherwise
    Detectron2 starts ``args.num_gpus`` processes. Without CUDA they communicate by gloo.

    Args:
        main: an importable function.
        args: result of Detectron2's ``default_argument_parser()``.

    Returns:
        The result of ``main``, or None if other processes ran it.
    """
    if not dist.is_torchelastic_launched():
        if args.num_gpus * args.num_machines == 1:
            return main(args)
        return launch(
            run_and_leave,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args),
        )
    has_cuda = torch.cuda.is_available()
    if has_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if has_cuda else "gloo")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    comm.synchronize()
    return run_and_leave(main, args)


def run_and_leave(main: Callable[..., Any], *args: Any) -> Any:
    """Run ``main(*args)``, then destroy the process groups.

    Detectron2's ``launch()`` ends the processes with the groups open: gloo's threads then race with
    the shutdown of the interpreter and occasionally abort a finished process. After an error the
    groups stay open, since NCCL could wait for a failed process.

    Returns:
        The result of ``main``.
    """
    result = main(*args)
    if dist.is_initialized():
        leave_process_groups()
    return result


def leave_process_groups() -> None:
    """Destroy all process groups of this process and wait for their threads.

    ``destroy_process_group`` alone is not enough: a group lives as long as it is referenced, and
    Detectron2's ``comm`` caches two of them.
    """
    dist.destroy_process_group()
    comm.create_local_process_group.cache_clear()
    comm._get_global_gloo_group.cache_clear()
    comm._LOCAL_PROCESS_GROUP = None
    gc.collect()  # DistributedDataParallel and the hooks of its model form reference cycles
