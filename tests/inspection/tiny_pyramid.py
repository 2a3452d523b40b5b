"""Tiny pyramids with random weights, written as a config and a checkpoint."""

from pathlib import Path

import numpy as np
import torch
from detectron2.modeling import build_model
from PIL import Image

from efpn_d2.inspection.pyramids import PyramidSource
from tests.modeling.helpers import tiny_config


def write_pyramid(
    folder: Path, label: str, seed: int = 0, **options: object
) -> tuple[PyramidSource, dict[str, torch.Tensor]]:
    """Returns where it is and its weights; images are not resized unless ``options`` say so."""
    cfg = tiny_config()
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.merge_from_list([x for pair in options.items() for x in pair])
    torch.manual_seed(seed)
    weights = build_model(cfg).state_dict()
    source = PyramidSource(label, str(folder / f"{label}.yaml"), str(folder / f"{label}.pth"))
    Path(source.config).write_text(cfg.dump())
    torch.save({"model": weights}, source.weights)
    return source, weights


def write_image(path: Path, width: int, height: int, seed: int = 0) -> np.ndarray:
    """Writes an image of random pixels, (height, width, 3) uint8 RGB, and returns it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels
