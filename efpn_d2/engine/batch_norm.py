"""One state of batch normalisation for all processes of a training."""

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class ShareBatchNorm(HookBase):
    """Share the running statistics before each checkpoint and each evaluation.

    Every process collects its own, and a checkpoint holds those of the first: without this, the
    others would go on from other ones after an interruption, and the weights in the file would not
    be the ones that were evaluated. So with several processes both periods are part of a training
    in which C'2 or the teacher of Eq. 5 reads these statistics.
    """

    def __init__(self, checkpoint_period: int, eval_period: int) -> None:
        """
        Args:
            checkpoint_period, eval_period: in iterations; 0: only at the end.
        """
        self._periods = [period for period in (checkpoint_period, eval_period) if period > 0]

    def after_step(self) -> None:
        """Share, where a checkpoint or an evaluation follows."""
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or any(done % period == 0 for period in self._periods):
            share_batch_norm(self.trainer.model)


@torch.no_grad()
def share_batch_norm(model: nn.Module) -> None:
    """Replace the running statistics that are being collected by their mean over the processes.

    Args:
        model: of every process the same; changed in place.
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
