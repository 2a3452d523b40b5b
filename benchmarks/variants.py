"""The backbones whose costs are compared: FPN, EFPN, and what can be inserted into both."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_backbone

import efpn_d2


class Variant(NamedTuple):
    """What a backbone has that the config has not."""

    options: list[Any]
    """Keys and values."""
    scale: int = 1
    """Side of its image as a multiple of the student's."""


_FPN = ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"]
_ENHANCED_FPN = ["MODEL.BACKBONE.NAME", "build_resnet_enhanced_fpn_backbone"]
_CEM = ["MODEL.EFPN_BS.CEM_ENABLED", True]
_FBSM = ["MODEL.EFPN_BS.FBSM_ENABLED", True]
SGDM = ["MODEL.SGDM.AFTER_STAGES", ["res2", "res3", "res4", "res5"]]

VARIANTS = {
    "FPN": Variant(_FPN),
    "EFPN, preset paper": Variant(["MODEL.EFPN.PRESET", "paper"]),
    "EFPN, preset reference": Variant(["MODEL.EFPN.PRESET", "reference"]),
    "EFPN, preset slim": Variant(["MODEL.EFPN.PRESET", "slim"]),
    "FPN on the image at twice the side": Variant(_FPN, scale=2),
    "FPN + CEM": Variant([*_ENHANCED_FPN, *_CEM]),
    "FPN + FBSM": Variant([*_ENHANCED_FPN, *_FBSM]),
    "FPN + CEM + FBSM": Variant([*_ENHANCED_FPN, *_CEM, *_FBSM]),
    "FPN + SGDM after res2-res5": Variant([*_ENHANCED_FPN, *SGDM]),
    "EFPN, preset paper + SGDM after res2-res5": Variant(SGDM),
    "EFPN, preset paper + CEM + FBSM + SGDM": Variant([*_CEM, *_FBSM, *SGDM]),
}


def build_variant(
    config: str, variant: Variant, device: str = "cpu", options: Sequence[str] = ()
) -> Backbone:
    """Its backbone and pyramid, with new weights, in evaluation mode.

    Args:
        config: a packaged config.
        variant: one of ``VARIANTS``.
        device: where it runs.
        options: more keys and values.
    """
    cfg = efpn_d2.get_config(config)
    cfg.MODEL.DEVICE = device
    cfg.merge_from_list([*variant.options, *options])
    return build_backbone(cfg, ShapeSpec(channels=3)).to(device).eval()
