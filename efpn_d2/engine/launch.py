"""Start the processes of a training, or join those that torchrun has started."""

import argparse
import os
from collections.abc import Callable
from typing import Any

import torch
from detectron2.engine import launch
from detectron2.utils import comm
from torch import distributed as dist


def launch_or_join(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    """Run ``main(args)`` in every process of the job.

    Under torchrun this process is one of them already, and torchrun's environment says which;
    otherwise Detectron2 starts ``args.num_gpus`` processes. Without CUDA they talk by gloo.

    Args:
        main: an importable function.
        args: as parsed by Detectron2's ``default_argument_parser()``.

    Returns:
        What ``main`` returns, or None when other processes ran it.
    """
    if not dist.is_torchelastic_launched():
        if args.num_gpus * args.num_machines == 1:
            return main(args)
        return launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    has_cuda = torch.cuda.is_available()
    if has_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if has_cuda else "gloo")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    comm.synchronize()
    try:
        return main(args)
    finally:
        dist.destroy_process_group()
