"""ROI heads that read small boxes from P'2, and the routing of boxes to them."""

from efpn_d2.modeling.roi_heads.efpn_roi_heads import EFPNCascadeROIHeads, EFPNROIHeads
from efpn_d2.modeling.roi_heads.ohem import OHEMSmallROIHeads, select_hard_boxes
from efpn_d2.modeling.roi_heads.routes import join_routes
from efpn_d2.modeling.roi_heads.routing import (
    BOX_ROUTER_REGISTRY,
    BoxRouter,
    SizeRouter,
    is_small_box,
)
from efpn_d2.modeling.roi_heads.small_head import SmallHeadMixin

__all__ = [
    "BOX_ROUTER_REGISTRY",
    "BoxRouter",
    "EFPNCascadeROIHeads",
    "EFPNROIHeads",
    "OHEMSmallROIHeads",
    "SizeRouter",
    "SmallHeadMixin",
    "is_small_box",
    "join_routes",
    "select_hard_boxes",
]
