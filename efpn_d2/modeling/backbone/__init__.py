from .build import build_efpn, build_resnet_efpn_backbone, build_retinanet_resnet_efpn_backbone
from .cem import ContextEnhancementModule
from .efpn import EFPN
from .enhanced_fpn import (
    EnhancedFPN,
    build_enhanced_fpn,
    build_resnet_enhanced_fpn_backbone,
    build_retinanet_resnet_enhanced_fpn_backbone,
)
from .enhancement import (
    ENHANCED_BUILDERS,
    PyramidEnhancement,
    build_enhancement,
    check_enhancement,
    is_enhanced,
)
from .extended_resnet import ExtendedResNet
from .extension import PyramidExtension
from .fbsm import ForegroundBackgroundSeparationModule
from .ftt import ESPCN, FeatureTextureTransfer, NearestUpsample
from .lazy_efpn import LazyEFPN
from .sgdm import (
    PyramidSGDM,
    RazorDynamicConv,
    StaticGuidedDynamicModule,
    add_sgdm_after_stages,
    build_sgdm,
)

__all__ = [
    "EFPN",
    "ENHANCED_BUILDERS",
    "ESPCN",
    "ContextEnhancementModule",
    "EnhancedFPN",
    "ExtendedResNet",
    "FeatureTextureTransfer",
    "ForegroundBackgroundSeparationModule",
    "LazyEFPN",
    "NearestUpsample",
    "PyramidEnhancement",
    "PyramidExtension",
    "PyramidSGDM",
    "RazorDynamicConv",
    "StaticGuidedDynamicModule",
    "add_sgdm_after_stages",
    "build_efpn",
    "build_enhanced_fpn",
    "build_enhancement",
    "build_resnet_efpn_backbone",
    "build_resnet_enhanced_fpn_backbone",
    "build_retinanet_resnet_efpn_backbone",
    "build_retinanet_resnet_enhanced_fpn_backbone",
    "build_sgdm",
    "check_enhancement",
    "is_enhanced",
]
