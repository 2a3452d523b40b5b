from .efpn_roi_heads import EFPNCascadeROIHeads, EFPNROIHeads
from .ohem import OHEMSmallROIHeads, select_hard_boxes
from .routing import is_small_box, join_routes
from .small_head import SmallHeadMixin

__all__ = [
    "EFPNCascadeROIHeads",
    "EFPNROIHeads",
    "OHEMSmallROIHeads",
    "SmallHeadMixin",
    "is_small_box",
    "join_routes",
    "select_hard_boxes",
]
