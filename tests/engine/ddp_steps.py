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

from efpn_d2.engine import DistillationTrainer

from .tiny_training import STOCK_OPTS, register, tiny_config

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
    "not_read": ["MODEL.EFPN.ROUTING", "none"],
    "distill": ["DISTILL.STAGE", "distill"],
    "head": ["DISTILL.STAGE", "head"],
    "joint": ["DISTILL.STAGE", "joint"],
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
    return {
        "weights": torch.cat([p.detach().flatten() for p in trainer.model.parameters()]),
        "without_gradient": sorted(without_gradient),
        "seed": trainer.data_loader.batch_sampler.seed,
        "batches": [
            [tuple(key) for key in batch]
            for batch in itertools.islice(trainer.data_loader.batch_sampler, 5)
        ],
    }


def main(output_dir: str) -> None:
    torch.set_num_threads(1)
    rank = comm.get_rank()
    register("ddp_test", Path(output_dir) / f"data{rank}")
    for model in MODELS:
        torch.save(train(model, Path(output_dir)), Path(output_dir) / f"{model}_{rank}.pth")


if __name__ == "__main__":
    # A collective that one of the processes never reaches ends the run after this time.
    launch(main, 2, dist_url="auto", args=(sys.argv[1],), timeout=timedelta(seconds=60))
