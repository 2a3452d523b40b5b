"""The pyramids whose costs are compared: FPN, EFPN, and what can be inserted into both."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_backbone

import efpn_d2

BASELINE = "FPN"
"""The pyramid and the detector that costs are multiples of."""


class Pyramid(NamedTuple):
    """Options of a pyramid with its bottom-up network."""

    options: list[Any]
    """Keys and values that change the config."""
    scale: int = 1
    """Side of its image as a multiple of the student's."""


_FPN = ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"]
_ENHANCED_FPN = ["MODEL.BACKBONE.NAME", "build_resnet_enhanced_fpn_backbone"]
_CEM = ["MODEL.EFPN_BS.CEM_ENABLED", True]
_FBSM = ["MODEL.EFPN_BS.FBSM_ENABLED", True]
SGDM = ["MODEL.SGDM.AFTER_STAGES", ["res2", "res3", "res4", "res5"]]

PYRAMIDS = {
    "FPN": Pyramid(_FPN),
    "EFPN, preset paper": Pyramid(["MODEL.EFPN.PRESET", "paper"]),
    "EFPN, preset reference": Pyramid(["MODEL.EFPN.PRESET", "reference"]),
    "EFPN, preset slim": Pyramid(["MODEL.EFPN.PRESET", "slim"]),
    "FPN on the image at twice the side": Pyramid(_FPN, scale=2),
    "FPN + CEM": Pyramid([*_ENHANCED_FPN, *_CEM]),
    "FPN + FBSM": Pyramid([*_ENHANCED_FPN, *_FBSM]),
    "FPN + CEM + FBSM": Pyramid([*_ENHANCED_FPN, *_CEM, *_FBSM]),
    "FPN + SGDM after res2-res5": Pyramid([*_ENHANCED_FPN, *SGDM]),
    "EFPN, preset paper + SGDM after res2-res5": Pyramid(SGDM),
    "EFPN, preset paper + CEM + FBSM + SGDM": Pyramid([*_CEM, *_FBSM, *SGDM]),
}


def build_pyramid(
    config: str, pyramid: Pyramid, device: str = "cpu", options: Sequence[str] = ()
) -> Backbone:
    """Bottom-up network and pyramid with new weights, in evaluation mode.

    Args:
        config: a packaged config.
        pyramid: one of ``PYRAMIDS``.
        device: where it runs.
        options: more keys and values.
    """
    cfg = efpn_d2.get_config(config)
    cfg.MODEL.DEVICE = device
    cfg.merge_from_list([*pyramid.options, *options])
    return build_backbone(cfg, ShapeSpec(channels=3)).to(device).eval()
