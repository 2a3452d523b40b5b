from .distillation import DistillationRCNN
from .retinanet import EFPNRetinaNet
from .tta import EFPNWithTTA, check_multi_scale_test

__all__ = ["DistillationRCNN", "EFPNRetinaNet", "EFPNWithTTA", "check_multi_scale_test"]
