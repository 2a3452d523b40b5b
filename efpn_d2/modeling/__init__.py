"""Modules of the detector. Importing them registers them with Detectron2."""

from efpn_d2.modeling.backbone import (
    EFPN,
    ESPCN,
    ContextEnhancementModule,
    EnhancedFPN,
    ExtendedResNet,
    FeatureTextureTransfer,
    ForegroundBackgroundSeparationModule,
    NearestUpsample,
    PyramidExtension,
    RazorDynamicConv,
    StaticGuidedDynamicModule,
    build_efpn,
    build_enhanced_fpn,
    build_resnet_efpn_backbone,
    build_resnet_enhanced_fpn_backbone,
    build_retinanet_resnet_efpn_backbone,
    build_retinanet_resnet_enhanced_fpn_backbone,
)
from efpn_d2.modeling.meta_arch import EFPNRCNN, DistillationRCNN, EFPNRetinaNet, EFPNWithTTA
from efpn_d2.modeling.proposal_generator import EFPNRPN
from efpn_d2.modeling.roi_heads import EFPNCascadeROIHeads, EFPNROIHeads, OHEMSmallROIHeads

__all__ = [
    "DistillationRCNN",
    "EFPN",
    "EFPNRCNN",
    "EFPNRPN",
    "ESPCN",
    "ContextEnhancementModule",
    "EFPNCascadeROIHeads",
    "EFPNROIHeads",
    "EFPNRetinaNet",
    "EFPNWithTTA",
    "EnhancedFPN",
    "ExtendedResNet",
    "FeatureTextureTransfer",
    "ForegroundBackgroundSeparationModule",
    "NearestUpsample",
    "OHEMSmallROIHeads",
    "PyramidExtension",
    "RazorDynamicConv",
    "StaticGuidedDynamicModule",
    "build_efpn",
    "build_enhanced_fpn",
    "build_resnet_efpn_backbone",
    "build_resnet_enhanced_fpn_backbone",
    "build_retinanet_resnet_efpn_backbone",
    "build_retinanet_resnet_enhanced_fpn_backbone",
]
