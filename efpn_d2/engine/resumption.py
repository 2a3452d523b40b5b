"""What a resumed training takes from its checkpoint, against its config."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from detectron2.engine import DefaultTrainer
from torch.optim import Optimizer

__all__ = ["explain_resumption"]

logger = logging.getLogger(__name__)

# What the optimizer's state in a checkpoint decides, by the config's names.
_IN_OPTIMIZER = {
    "SOLVER.BASE_LR": "initial_lr",
    "SOLVER.WEIGHT_DECAY": "weight_decay",
    "SOLVER.MOMENTUM": "momentum",
}


@contextlib.contextmanager
def explain_resumption(trainer: DefaultTrainer) -> Iterator[None]:
    """Compare the trainer before and after its checkpoint is loaded within this context.

    A warning is logged for each setting of the optimizer that stays the checkpoint's though the
    config has another one, and if no iteration is left.

    Args:
        trainer: about to resume; its optimizer is as the config says.
    """
    optimizer = trainer._trainer.optimizer
    configured = _settings(optimizer)
    yield
    for key, value in _settings(optimizer).items():
        if value != configured[key]:
            logger.warning(
                f"{key} is {configured[key]} in the config, but the training resumes with {value}, "
                "the checkpoint's: start without --resume to change it."
            )
    if trainer.iter + 1 >= trainer.max_iter:
        logger.warning(
            f"Nothing is left to train: the checkpoint has {trainer.iter + 1} iterations, and "
            f"SOLVER.MAX_ITER is {trainer.max_iter}."
        )


def _settings(optimizer: Optimizer) -> dict[str, Any]:
    """Of the first group of parameters, which has the config's values."""
    group = optimizer.param_groups[0]
    return {key: group.get(name) for key, name in _IN_OPTIMIZER.items()}
