"""Adjust a config to this machine: its device and its files."""

import os

import torch
from detectron2.config import CfgNode


def use_cpu_without_cuda(cfg: CfgNode) -> bool:
    """Set ``MODEL.DEVICE`` to the CPU if CUDA is requested but not available.

    Args:
        cfg: a config; modified in place.

    Returns:
        Whether it was modified.
    """
    if not cfg.MODEL.DEVICE.startswith("cuda") or torch.cuda.is_available():
        return False
    cfg.MODEL.DEVICE = "cpu"
    return True


def check_weights_file(cfg: CfgNode) -> None:
    """Check that ``MODEL.WEIGHTS`` is empty, a URL or a file.

    Raises:
        FileNotFoundError: if the file does not exist.
    """
    weights = cfg.MODEL.WEIGHTS
    if weights and "://" not in weights and not os.path.isfile(weights):
        raise FileNotFoundError(f"MODEL.WEIGHTS: the file '{weights}' does not exist.")
