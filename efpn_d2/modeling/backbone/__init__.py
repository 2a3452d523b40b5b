"""Bottom-up networks, pyramids and the modules inserted into them."""

from efpn_d2.modeling.backbone.bottom_up import ExtendedBottomUp
from efpn_d2.modeling.backbone.build import (
    build_efpn,
    build_resnet_efpn_backbone,
    build_retinanet_resnet_efpn_backbone,
)
from efpn_d2.modeling.backbone.cem import ContextEnhancementModule
from efpn_d2.modeling.backbone.efpn import EFPN
from efpn_d2.modeling.backbone.enhanced_fpn import (
    EnhancedFPN,
    build_enhanced_fpn,
    build_resnet_enhanced_fpn_backbone,
    build_retinanet_resnet_enhanced_fpn_backbone,
)
from efpn_d2.modeling.backbone.enhancement import (
    PyramidEnhancement,
    build_enhancement,
    find_fbsm,
)
from efpn_d2.modeling.backbone.extended_resnet import ExtendedResNet
from efpn_d2.modeling.backbone.extension import PyramidExtension
from efpn_d2.modeling.backbone.fbsm import ForegroundBackgroundSeparationModule
from efpn_d2.modeling.backbone.ftt import ESPCN, FeatureTextureTransfer, NearestUpsample
from efpn_d2.modeling.backbone.lazy_efpn import LazyEFPN
from efpn_d2.modeling.backbone.sgdm import (
    PyramidSGDM,
    RazorDynamicConv,
    StaticGuidedDynamicModule,
    add_sgdm_after_stages,
    build_sgdm,
)
from efpn_d2.modeling.backbone.upsampler import UPSAMPLER_REGISTRY, Upsampler

__all__ = [
    "EFPN",
    "ESPCN",
    "ContextEnhancementModule",
    "EnhancedFPN",
    "ExtendedBottomUp",
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
    "UPSAMPLER_REGISTRY",
    "Upsampler",
    "add_sgdm_after_stages",
    "build_efpn",
    "build_enhanced_fpn",
    "build_enhancement",
    "build_resnet_efpn_backbone",
    "build_resnet_enhanced_fpn_backbone",
    "build_retinanet_resnet_efpn_backbone",
    "build_retinanet_resnet_enhanced_fpn_backbone",
    "build_sgdm",
    "find_fbsm",
]
