"""Table of the registered names of Detectron2's parts and their replacements."""

#: By config key: Detectron2's parts, and their counterparts in this package, which support P'2. If
#: several stock names have the same counterpart, :func:`stock_name` returns the first one.
EXTENDED: dict[str, dict[str, str]] = {
    "MODEL.BACKBONE.NAME": {
        "build_resnet_fpn_backbone": "build_resnet_efpn_backbone",
        "build_retinanet_resnet_fpn_backbone": "build_retinanet_resnet_efpn_backbone",
    },
    "MODEL.PROPOSAL_GENERATOR.NAME": {"RPN": "EFPNRPN"},
    "MODEL.ROI_HEADS.NAME": {
        "StandardROIHeads": "EFPNROIHeads",
        "Res5ROIHeads": "EFPNROIHeads",
        "CascadeROIHeads": "EFPNCascadeROIHeads",
    },
    "MODEL.META_ARCHITECTURE": {"RetinaNet": "EFPNRetinaNet"},
}

#: Detectron2's pyramid builders, and those that insert CEM, FBSM and SGDM without P'2.
ENHANCED_BUILDERS = {
    "build_resnet_fpn_backbone": "build_resnet_enhanced_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone": "build_retinanet_resnet_enhanced_fpn_backbone",
}

#: Detectron2's meta-architectures, and those that compute the loss of FBSM's masks.
MASK_LOSS_ARCHITECTURES = {
    "GeneralizedRCNN": "EFPNRCNN",
    "PanopticFPN": None,  # there is no counterpart
    "ProposalNetwork": None,
    "FCOS": None,
    "RetinaNet": "EFPNRetinaNet",
}

#: The options of Detectron2's Faster R-CNN on FPN.
STOCK_FASTER_RCNN = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
}


def stock_name(key: str, name: str) -> str:
    """Return Detectron2's counterpart of a part of this package, or ``name`` if there is none.

    Args:
        key: a key of :data:`EXTENDED`.
        name: registered name of the part.
    """
    return next((stock for stock, own in EXTENDED[key].items() if own == name), name)
