"""Warnings about settings that a resumed training takes from its checkpoint."""

import logging
from typing import Any

from detectron2.engine import DefaultTrainer
from torch.optim import Optimizer

logger = logging.getLogger(__name__)

# Settings that the optimizer's state in a checkpoint overrides, by their names in the config.
_IN_OPTIMIZER = {
    "SOLVER.BASE_LR": "initial_lr",
    "SOLVER.WEIGHT_DECAY": "weight_decay",
    "SOLVER.MOMENTUM": "momentum",
}


def optimizer_settings(optimizer: Optimizer) -> dict[str, Any]:
    """Return settings of the first parameter group, which has all, by their names in the config."""
    group = optimizer.param_groups[0]
    return {key: group.get(name) for key, name in _IN_OPTIMIZER.items()}


def warn_of_resumption(trainer: DefaultTrainer, configured: dict[str, Any]) -> None:
    """Warn of each setting that the checkpoint overrides, and if no iteration is left.

    Args:
        trainer: a trainer that has resumed.
        configured: :func:`optimizer_settings` before resuming, i.e. those of the config.
    """
    for key, value in optimizer_settings(trainer._trainer.optimizer).items():
        if value != configured[key]:
            logger.warning(
                f"{key} is {configured[key]} in the config, but the training resumes with {value} "
                "of the checkpoint: start without --resume to change it."
            )
    if trainer.iter + 1 >= trainer.max_iter:
        logger.warning(
            f"Nothing is left to train: the checkpoint has {trainer.iter + 1} iterations, and "
            f"SOLVER.MAX_ITER is {trainer.max_iter}."
        )
