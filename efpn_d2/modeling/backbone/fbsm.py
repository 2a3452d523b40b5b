"""Foreground-background separation: spatial gates on the low levels [abstract of E-FPN-BS].

A reconstruction from the abstract, which mentions "spatial gating masks that dynamically amplify
discriminative regions"; the details are ours.
"""

from collections.abc import Mapping

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from efpn_d2.config import require_node
from efpn_d2.layers import conv_layer
from efpn_d2.modeling.checks import pick_levels


class ForegroundBackgroundSeparationModule(nn.Module):
    """Amplify each level where its mask is high: ``P_l <- P_l * (1 + gamma_l * M_l)``.

    ``M_l = sigmoid(conv3x3(P_l))`` has one channel. ``gamma_l`` is learned from 0, so a trained
    pyramid initially keeps its features, bit for bit. [ours]
    """

    def __init__(self, levels: Mapping[str, ShapeSpec]) -> None:
        """
        Args:
            levels: names and channels of the levels to gate.

        Raises:
            ValueError: if there are none.
        """
        super().__init__()
        if not levels:
            raise ValueError("FBSM: name at least one level to gate.")
        self.levels = tuple(levels)
        self.mask = nn.ModuleDict(
            {
                name: conv_layer(shape.channels, 1, 3, initialize=_init_mask)
                for name, shape in levels.items()
            }
        )
        self.gamma = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in levels})

    def changed_levels(self) -> tuple[str, ...]:
        """Return the gated levels."""
        return self.levels

    def mask_logits(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute masks before the sigmoid, (N, 1, H_l, W_l), of all gated levels."""
        return {name: self.mask[name](outputs[name]) for name in self.levels}

    def forward(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gate the levels of a pyramid's outputs, each (N, C, H_l, W_l)."""
        return self.gate(outputs, self.mask_logits(outputs))

    def gate(self, outputs: dict[str, Tensor], mask_logits: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run :meth:`forward` with given :meth:`mask_logits` of the same outputs."""
        gated = dict(outputs)
        for name, logits in mask_logits.items():
            gated[name] = outputs[name] * (1 + self.gamma[name] * logits.sigmoid())
        return gated


def _init_mask(conv: nn.Conv2d) -> None:
    """Initialize the masks near 1/2, where the gradient of a sigmoid is largest.

    With the usual initialization, whose scale depends on the number of filters, this single filter
    would saturate most cells from the start.
    """
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def build_fbsm(
    cfg: CfgNode, levels: dict[str, ShapeSpec]
) -> ForegroundBackgroundSeparationModule | None:
    """Build FBSM on the levels of ``MODEL.EFPN_BS.FBSM_LEVELS`` in the pyramid; None if disabled.

    Args:
        cfg: a config.
        levels: the pyramid's ``output_shape()``.

    Raises:
        ValueError: if the pyramid has none of the levels, or a name is not a level of any pyramid.
        KeyError: if ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN_BS")
    if not node.FBSM_ENABLED:
        return None
    return ForegroundBackgroundSeparationModule(
        pick_levels("MODEL.EFPN_BS.FBSM_LEVELS", node.FBSM_LEVELS, levels)
    )
