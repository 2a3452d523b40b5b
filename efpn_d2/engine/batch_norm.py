"""Synchronize the running statistics of batch normalization between processes."""

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class ShareBatchNorm(HookBase):
    """Average the running statistics over the processes before each checkpoint and evaluation.

    Each process collects its own statistics, but a checkpoint holds those of the first process
    only. Without this hook, the other processes would resume with different statistics, and the
    evaluated weights would differ from the saved ones. With several processes, both periods
    therefore affect a training in which C'2 or the teacher of Eq. 5 reads these statistics.
    """

    def __init__(self, checkpoint_period: int, eval_period: int) -> None:
        """
        Args:
            checkpoint_period: iterations between checkpoints; 0: only at the end.
            eval_period: iterations between evaluations; 0: only at the end.
        """
        self._periods = [period for period in (checkpoint_period, eval_period) if period > 0]

    def after_step(self) -> None:
        """Average the statistics if a checkpoint or an evaluation follows."""
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or any(done % period == 0 for period in self._periods):
            share_batch_norm(self.trainer.model)


@torch.no_grad()
def share_batch_norm(model: nn.Module) -> None:
    """Replace running statistics that are being updated by their mean over the processes.

    Args:
        model: the same model in every process; changed in place.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    collecting = [m for m in norms if m.training and m.running_mean is not None]
    if comm.get_world_size() == 1 or not collecting:
        return
    both = [x for m in collecting for x in (m.running_mean, m.running_var)]
    statistics = [x for x in both if x is not None]
    mean = torch.cat([x.flatten() for x in statistics])
    dist.all_reduce(mean)
    mean /= comm.get_world_size()
    for own, shared in zip(statistics, mean.split([x.numel() for x in statistics]), strict=True):
        own.copy_(shared.view_as(own))
