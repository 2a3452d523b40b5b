"""Meta-architectures: detectors with the losses of this package, and the multi-scale test."""

from efpn_d2.modeling.meta_arch.distillation import DistillationRCNN
from efpn_d2.modeling.meta_arch.rcnn import EFPNRCNN
from efpn_d2.modeling.meta_arch.retinanet import EFPNRetinaNet
from efpn_d2.modeling.meta_arch.tta import EFPNWithTTA, check_multi_scale_test

__all__ = [
    "DistillationRCNN",
    "EFPNRCNN",
    "EFPNRetinaNet",
    "EFPNWithTTA",
    "check_multi_scale_test",
]
