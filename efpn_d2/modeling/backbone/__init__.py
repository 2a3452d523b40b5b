from .efpn import EFPN, build_efpn, build_resnet_efpn_backbone, build_retinanet_resnet_efpn_backbone
from .extended_resnet import ExtendedResNet
from .extension import PyramidExtension
from .ftt import ESPCN, FeatureTextureTransfer, NearestUpsample

__all__ = [
    "EFPN",
    "ESPCN",
    "ExtendedResNet",
    "FeatureTextureTransfer",
    "NearestUpsample",
    "PyramidExtension",
    "build_efpn",
    "build_resnet_efpn_backbone",
    "build_retinanet_resnet_efpn_backbone",
]
