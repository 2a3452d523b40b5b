from .efpn_roi_heads import EFPNCascadeROIHeads, EFPNROIHeads
from .routing import is_small_box, join_routes
from .small_head import SmallHeadMixin

__all__ = [
    "EFPNCascadeROIHeads",
    "EFPNROIHeads",
    "SmallHeadMixin",
    "is_small_box",
    "join_routes",
]
