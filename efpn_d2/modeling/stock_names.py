"""Registered names of Detectron2's parts and of what takes their place: the one table of them."""

#: By config key: the parts that Detectron2 has, and those of this package that know P'2. Of several
#: stock names with one counterpart the first is the one that it goes back to.
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

#: Detectron2's builders of pyramids, and those that insert CEM, FBSM and SGDM without P'2.
ENHANCED_BUILDERS = {
    "build_resnet_fpn_backbone": "build_resnet_enhanced_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone": "build_retinanet_resnet_enhanced_fpn_backbone",
}

#: Detectron2's meta-architectures, and those that compute the loss of FBSM's masks.
MASK_LOSS_ARCHITECTURES = {
    "GeneralizedRCNN": "EFPNRCNN",
    "PanopticFPN": "EFPNRCNN",
    "ProposalNetwork": "EFPNRCNN",
    "FCOS": "EFPNRetinaNet",
    "RetinaNet": "EFPNRetinaNet",
}

#: The options of Detectron2's Faster R-CNN on FPN.
STOCK_FASTER_RCNN = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
}


def stock_name(key: str, name: str) -> str:
    """What Detectron2 has in the place of a part of this package; ``name`` itself for any other.

    Args:
        key: of the config, one of :data:`EXTENDED`.
        name: the part's registered name.
    """
    return next((stock for stock, own in EXTENDED[key].items() if own == name), name)
