"""DCLoss in two processes that see different objects, one of them at times none.

Run as ``python -m tests.losses.balance_steps OUTPUT_DIR``; each rank writes what it computed.
"""

import sys
from datetime import timedelta
from pathlib import Path

import torch
from detectron2.engine import launch
from detectron2.utils import comm
from torch import Tensor
from torch.nn import functional as F

from efpn_d2.engine import run_and_leave
from efpn_d2.losses import DynamicGradientBalancedLoss

# Per step and rank: probability given to each object, and its size.
STEPS = [
    [([], []), ([], [])],
    [([0.2, 0.4], [4.0, 4.0]), ([0.6], [20.0])],
    [([], []), ([0.7, 0.9], [4.0, 20.0])],
    [([0.5], [4.0]), ([], [])],
]


def positive_bce(logits: Tensor, rows: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="sum")


def steps(batches: list[tuple[list[float], list[float]]]) -> dict[str, list]:
    """What is added in each step, and the state after it."""
    loss = DynamicGradientBalancedLoss(alpha=1.0, size_bins=[8])
    extra, states = [], []
    for probabilities, sizes in batches:
        extra.append(loss(positive_bce, torch.tensor(probabilities).logit(), torch.tensor(sizes)))
        states.append({k: v.clone() for k, v in loss.state_dict().items()})
    return {"extra": extra, "states": states}


def main(output_dir: str) -> None:
    torch.set_num_threads(1)
    rank = comm.get_rank()
    torch.save(steps([step[rank] for step in STEPS]), Path(output_dir) / f"{rank}.pth")


if __name__ == "__main__":
    # A collective that one of the processes never reaches ends the run after this time.
    launch(
        run_and_leave, 2, dist_url="auto", args=(main, sys.argv[1]), timeout=timedelta(seconds=60)
    )
