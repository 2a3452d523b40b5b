"""Foreground-background separation: spatial gates on the low levels [abstract of E-FPN-BS].

A reconstruction from the abstract, which names "spatial gating masks that dynamically amplify
discriminative regions"; the inside is ours.
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
    """Amplifies each level where its mask is: ``P_l <- P_l * (1 + gamma_l * M_l)``.

    ``M_l = sigmoid(conv3x3(P_l))`` has one channel. ``gamma_l`` is learnt from 0, so that a trained
    pyramid keeps its maps at first, bit for bit. [ours]
    """

    def __init__(self, levels: Mapping[str, ShapeSpec]) -> None:
        """
        Args:
            levels: name and channels of the levels to gate.

        Raises:
            ValueError: there is none.
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
        """The gated levels."""
        return self.levels

    def mask_logits(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Masks before the sigmoid, (N, 1, H_l, W_l) of each gated level (N, C, H_l, W_l)."""
        return {name: self.mask[name](outputs[name]) for name in self.levels}

    def forward(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """A pyramid's outputs, each (N, C, H_l, W_l) -> the same, with the levels gated."""
        return self.gate(outputs, self.mask_logits(outputs))

    def gate(self, outputs: dict[str, Tensor], mask_logits: dict[str, Tensor]) -> dict[str, Tensor]:
        """:meth:`forward`, given the :meth:`mask_logits` of the same outputs."""
        gated = dict(outputs)
        for name, logits in mask_logits.items():
            gated[name] = outputs[name] * (1 + self.gamma[name] * logits.sigmoid())
        return gated


def _init_mask(conv: nn.Conv2d) -> None:
    """Near 1/2, where a sigmoid learns fastest.

    At the scale of other convolutions, which goes by the number of filters, most cells of this
    single one would be shut or open from the start.
    """
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def build_fbsm(
    cfg: CfgNode, levels: dict[str, ShapeSpec]
) -> ForegroundBackgroundSeparationModule | None:
    """FBSM on those of ``MODEL.EFPN_BS.FBSM_LEVELS`` that the pyramid has; None: it is off.

    Args:
        cfg: a config.
        levels: the pyramid's ``output_shape()``.

    Raises:
        ValueError: the pyramid has none of the levels, or no pyramid has one.
        KeyError: ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN_BS")
    if not node.FBSM_ENABLED:
        return None
    return ForegroundBackgroundSeparationModule(
        pick_levels("MODEL.EFPN_BS.FBSM_LEVELS", node.FBSM_LEVELS, levels)
    )
