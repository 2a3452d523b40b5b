"""A synthetic set of small road signs, written to disk as image files with a COCO JSON."""

from efpn_d2.data.datasets.synthetic.config import SyntheticConfig, synthetic_paths
from efpn_d2.data.datasets.synthetic.generate import generate_synthetic
from efpn_d2.data.datasets.synthetic.glyphs import CLASS_NAMES

__all__ = ["CLASS_NAMES", "SyntheticConfig", "generate_synthetic", "synthetic_paths"]
