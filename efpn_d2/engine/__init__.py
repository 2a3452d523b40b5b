"""Trainers, training stages, the resumable data loader and the start of processes."""

from efpn_d2.engine.distillation import DistillationTrainer
from efpn_d2.engine.launch import launch_or_join, run_and_leave
from efpn_d2.engine.resumable_loader import build_resumable_train_loader
from efpn_d2.engine.trainer import EFPNTrainer
from efpn_d2.modeling.stage_table import StageError

__all__ = [
    "DistillationTrainer",
    "EFPNTrainer",
    "StageError",
    "build_resumable_train_loader",
    "launch_or_join",
    "run_and_leave",
]
