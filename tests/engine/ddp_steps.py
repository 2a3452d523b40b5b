"""Two training steps per model in two processes; each head is without a box in one of them.

Run as ``python -m tests.engine.ddp_steps OUTPUT_DIR``; each rank writes what it ended with.
"""

import itertools
import sys
from datetime import timedelta
from pathlib import Path

import torch
from detectron2.engine import launch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from efpn_d2.engine import DistillationTrainer, run_and_leave
from efpn_d2.engine.batch_norm import share_batch_norm
from efpn_d2.engine.training_loop import AMPMicroBatchTrainer, MicroBatchTrainer
from tests.engine.tiny_training import STOCK_OPTS, WIDE_ENOUGH_FOR_BF16, register, tiny_config

IN_PARTS = ["TRAINING.ACCUMULATE_GRADIENTS", 2, "SOLVER.AMP.ENABLED", True]
MODELS = {
    "stock": STOCK_OPTS,
    "efpn": [],
    # Cropping polygons would need shapely.
    "mask": [
        *("MODEL.MASK_ON", "True", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8"),
        *("INPUT.CROP.ENABLED", "False"),
    ],
    "cascade": [
        *("MODEL.ROI_HEADS.NAME", "EFPNCascadeROIHeads"),
        *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"),
    ],
    "duplicate": ["MODEL.EFPN.ROUTING", "duplicate"],
    "dcloss": ["MODEL.EFPN_BS.DCLOSS_ENABLED", True, "MODEL.EFPN_BS.DCLOSS_ALPHA", 1.0],
    "not_read": ["MODEL.EFPN.ROUTING", "none"],
    "distill": ["DISTILL.STAGE", "distill"],
    "head": ["DISTILL.STAGE", "head"],
    "joint": ["DISTILL.STAGE", "joint"],
    "joint_in_parts_bfloat16": [
        *("DISTILL.STAGE", "joint", *IN_PARTS, "TRAINING.AMP_PRECISION", "bfloat16"),
        *WIDE_ENOUGH_FOR_BF16,
    ],
    "head_in_parts_float16": [
        *("DISTILL.STAGE", "head", *IN_PARTS, "TRAINING.AMP_PRECISION", "float16"),
        *("INPUT.MIN_SIZE_TRAIN", "(32,)"),
    ],
}


def train(model: str, output_dir: Path) -> dict[str, object]:
    # Without a configured seed the ranks have to agree on one.
    cfg = tiny_config("ddp_test", output_dir, *MODELS[model], "SOLVER.IMS_PER_BATCH", 4, "SEED", -1)
    trainer = DistillationTrainer(cfg)
    heads = trainer.model.module.roi_heads
    if hasattr(heads, "small_box_size"):
        heads.small_box_size = (0.0, 1e6)[comm.get_rank()]
    without_gradient = set()
    with EventStorage():
        for trainer.iter in range(2):
            trainer.run_step()
            without_gradient |= {
                name
                for name, p in trainer.model.named_parameters()
                if p.requires_grad and p.grad is None
            }
    before = statistics(trainer.model)
    share_batch_norm(trainer.model)
    return {
        "statistics": (before, statistics(trainer.model)),
        "weights": torch.cat([p.detach().flatten() for p in trainer.model.parameters()]),
        "without_gradient": sorted(without_gradient),
        "dcloss": {
            name: value
            for name, value in trainer.model.module.state_dict().items()
            if "gradient_balance" in name
        },
        "seed": trainer.data_loader.batch_sampler.seed,
        "batches": [
            [tuple(key) for key in batch]
            for batch in itertools.islice(trainer.data_loader.batch_sampler, 5)
        ],
    }


def statistics(model: nn.Module) -> torch.Tensor:
    named = model.named_buffers()
    return torch.cat([x.flatten().clone() for name, x in named if ".running_" in name])


class Scale(nn.Module):
    """``weight * mean(batch)``, so that the gradient is the batch's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))

    def forward(self, batch: list[float]) -> dict[str, torch.Tensor]:
        return {"loss_scale": (self.weight * torch.tensor(batch)).mean()}


def one_step_in_parts(amp: bool) -> dict[str, object]:
    """A step of 2 processes with 2 parts each, on batches of their own."""
    model = DistributedDataParallel(Scale())
    exchanges = []

    def count(group: object, bucket: GradBucket) -> Future[torch.Tensor]:
        exchanges.append(bucket.index())
        return allreduce_hook(group, bucket)

    model.register_comm_hook(None, count)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batch = [[1.0, 2.0, 6.0, 7.0], [0.0, 4.0, 12.0, 16.0]][comm.get_rank()]
    loop_class = AMPMicroBatchTrainer if amp else MicroBatchTrainer
    loop = loop_class(model, [batch], optimizer, micro_batches=2)
    with EventStorage() as storage:
        loop.iter = 0
        loop.run_step()
    logged = storage.latest()["total_loss"][0] if comm.is_main_process() else None
    weight = model.module.weight.item()
    return {"weight": weight, "exchanges": len(exchanges), "logged": logged}


def main(output_dir: str) -> None:
    torch.set_num_threads(1)
    rank = comm.get_rank()
    steps = {f"amp={amp}": one_step_in_parts(amp) for amp in (False, True)}
    torch.save(steps, Path(output_dir) / f"steps_{rank}.pth")
    register("ddp_test", Path(output_dir) / f"data{rank}")
    for model in MODELS:
        torch.save(train(model, Path(output_dir)), Path(output_dir) / f"{model}_{rank}.pth")


if __name__ == "__main__":
    # A collective that one of the processes never reaches ends the run after this time.
    launch(
        run_and_leave, 2, dist_url="auto", args=(main, sys.argv[1]), timeout=timedelta(seconds=60)
    )
