"""Training: trainers, stages, resumable data stream, process start-up."""

from .distillation import DistillationTrainer, StageError
from .launch import launch_or_join, run_and_leave
from .resumable_loader import build_resumable_train_loader
from .trainer import EFPNTrainer

__all__ = [
    "DistillationTrainer",
    "EFPNTrainer",
    "StageError",
    "build_resumable_train_loader",
    "launch_or_join",
    "run_and_leave",
]
