from efpn_d2.modeling.roi_heads.efpn_roi_heads import EFPNCascadeROIHeads, EFPNROIHeads
from efpn_d2.modeling.roi_heads.ohem import OHEMSmallROIHeads, select_hard_boxes
from efpn_d2.modeling.roi_heads.routing import is_small_box, join_routes
from efpn_d2.modeling.roi_heads.small_head import SmallHeadMixin

__all__ = [
    "EFPNCascadeROIHeads",
    "EFPNROIHeads",
    "OHEMSmallROIHeads",
    "SmallHeadMixin",
    "is_small_box",
    "join_routes",
    "select_hard_boxes",
]
