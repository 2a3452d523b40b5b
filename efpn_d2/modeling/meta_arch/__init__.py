from .distillation import DistillationRCNN
from .retinanet import EFPNRetinaNet

__all__ = ["DistillationRCNN", "EFPNRetinaNet"]
