"""Extended Feature Pyramid Network for Detectron2.

Importing the package registers its modules with Detectron2 and does nothing else.
"""

from efpn_d2 import modeling  # noqa: F401  registers backbones, proposal generator and ROI heads
from efpn_d2.config import add_efpn_config
from efpn_d2.model_zoo import get_config, get_config_file

__version__ = "0.1.0"

__all__ = ["add_efpn_config", "get_config", "get_config_file", "__version__"]
