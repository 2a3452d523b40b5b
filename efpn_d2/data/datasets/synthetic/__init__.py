"""A synthetic set of small road signs, written to disk as image files with a COCO JSON."""

from .config import SyntheticConfig, synthetic_paths
from .generate import generate_synthetic
from .glyphs import CLASS_NAMES

__all__ = ["CLASS_NAMES", "SyntheticConfig", "generate_synthetic", "synthetic_paths"]
