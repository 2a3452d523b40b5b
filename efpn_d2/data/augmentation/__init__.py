"""Augmentations for small objects, made of Detectron2's own where it has them."""

from efpn_d2.data.augmentation.copy_paste import (
    CopyPasteMapper,
    PasteTransform,
    SmallObjectCopyPaste,
)
from efpn_d2.data.augmentation.jitter import color_jitter, with_scale_jitter

__all__ = [
    "CopyPasteMapper",
    "PasteTransform",
    "SmallObjectCopyPaste",
    "color_jitter",
    "with_scale_jitter",
]
