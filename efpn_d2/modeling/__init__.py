"""Modules of the detector. Importing them registers them with Detectron2."""

from .backbone import (
    EFPN,
    ESPCN,
    ExtendedResNet,
    FeatureTextureTransfer,
    NearestUpsample,
    PyramidExtension,
    build_efpn,
    build_resnet_efpn_backbone,
    build_retinanet_resnet_efpn_backbone,
)
from .meta_arch import DistillationRCNN
from .proposal_generator import EFPNRPN
from .roi_heads import EFPNCascadeROIHeads, EFPNROIHeads, OHEMSmallROIHeads

__all__ = [
    "DistillationRCNN",
    "EFPN",
    "EFPNRPN",
    "ESPCN",
    "EFPNCascadeROIHeads",
    "EFPNROIHeads",
    "ExtendedResNet",
    "FeatureTextureTransfer",
    "NearestUpsample",
    "OHEMSmallROIHeads",
    "PyramidExtension",
    "build_efpn",
    "build_resnet_efpn_backbone",
    "build_retinanet_resnet_efpn_backbone",
]
