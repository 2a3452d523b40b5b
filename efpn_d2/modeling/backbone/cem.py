"""Context enhancement: P5 and P6 as context for the lower levels [abstract of E-FPN-BS].

A reconstruction from the abstract, which names two branches that "align and compress high-level
features for effective global-local fusion"; the inside is ours.
"""

from collections.abc import Mapping

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor, nn
from torch.nn import functional as F

from efpn_d2.config import require_node
from efpn_d2.layers import BRANCH_GAIN, conv_layer
from efpn_d2.modeling.checks import check_positive, pick_levels


class ContextEnhancementModule(nn.Module):
    """Adds to each low level ``E_l``, made of the high levels by a local and a global branch.

    For each high level h (P5 and P6):

    * local: ``pixel_shuffle(conv3x3(compress1x1(h)))``, cut to the size of the low level, whose
      cells it is aligned with;
    * global: ``relu(conv1x1(global_average(h)))``, the same for all cells.

    Both are summed over the high levels, and ``E_l = conv1x1([local ; global])``, which starts
    small: a trained pyramid keeps its maps nearly as they are, and yet P5 gets a gradient from the
    first step on, also where no box or anchor reads it. [ours]
    """

    def __init__(
        self,
        high: Mapping[str, ShapeSpec],
        low: Mapping[str, ShapeSpec],
        *,
        compressed_channels: int = 64,
        local_channels: int = 16,
    ) -> None:
        """
        Args:
            high: name, channels and stride of the levels that give context.
            low: the same of the levels that get it; their strides divide those of ``high``.
            compressed_channels: of a high level before it is spread, and of the global branch.
            local_channels: of a high level spread to a low level's size.

        Raises:
            ValueError: there is no high or no low level, a low level is not lower, or a number of
                channels is below 1.
        """
        super().__init__()
        check_positive(
            "MODEL.EFPN_BS",
            CEM_COMPRESSED_CHANNELS=compressed_channels,
            CEM_LOCAL_CHANNELS=local_channels,
        )
        if not high or not low:
            raise ValueError("CEM: name at least one level that gives context and one to get it.")
        self.high, self.low = tuple(high), tuple(low)
        self.compress, self.pool, self.spread, self.fuse_local, self.fuse_global = (
            nn.ModuleDict() for _ in range(5)
        )
        for name, shape in high.items():
            self.compress[name] = conv_layer(shape.channels, compressed_channels, 1)
            self.pool[name] = conv_layer(shape.channels, compressed_channels, 1)
            self.spread[name] = nn.ModuleDict(
                {
                    target: _spread(compressed_channels, local_channels, shape, low[target])
                    for target in low
                }
            )
        # One convolution on the concatenation, in two parts: the global one has one cell only.
        for name, shape in low.items():
            self.fuse_local[name] = conv_layer(local_channels, shape.channels, 1, gain=BRANCH_GAIN)
            self.fuse_global[name] = conv_layer(
                compressed_channels, shape.channels, 1, bias=False, gain=BRANCH_GAIN
            )

    def changed_levels(self) -> tuple[str, ...]:
        """The low levels."""
        return self.low

    def forward(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """A pyramid's outputs, each (N, C, H_l, W_l) -> the same, with the low levels enhanced."""
        compressed = {name: F.relu_(self.compress[name](outputs[name])) for name in self.high}
        pooled = torch.stack(
            [
                F.relu_(self.pool[name](outputs[name].mean(dim=(2, 3), keepdim=True)))
                for name in self.high
            ]
        ).sum(dim=0)
        enhanced = dict(outputs)
        for target in self.low:
            height, width = outputs[target].shape[-2:]
            # Where sides are odd, a high level reaches beyond the low one on the right and below.
            spread = {name: self.spread.get_submodule(f"{name}.{target}") for name in self.high}
            local = sum(spread[name](compressed[name])[..., :height, :width] for name in self.high)
            # In place: at the resolution of P2 the sums cost more than all convolutions here.
            context = self.fuse_local[target](local).add_(self.fuse_global[target](pooled))
            enhanced[target] = context.to(outputs[target].dtype).add_(outputs[target])
        return enhanced


def _spread(channels: int, local_channels: int, high: ShapeSpec, low: ShapeSpec) -> nn.Sequential:
    """conv3x3 and pixel shuffle from the stride of ``high`` to that of ``low``."""
    factor, rest = divmod(high.stride, low.stride)
    if rest or factor < 2:
        raise ValueError(
            f"CEM: a level of stride {high.stride} cannot give context to one of stride "
            f"{low.stride}: name higher levels (P5, P6) to give it and lower ones to get it."
        )
    return nn.Sequential(
        conv_layer(channels, local_channels * factor**2, 3), nn.PixelShuffle(factor)
    )


def build_cem(cfg: CfgNode, levels: dict[str, ShapeSpec]) -> ContextEnhancementModule | None:
    """CEM between those of ``MODEL.EFPN_BS``'s levels that the pyramid has; None: it is off.

    Args:
        cfg: a config.
        levels: the pyramid's ``output_shape()``.

    Raises:
        ValueError: see :func:`pick_levels` and :class:`ContextEnhancementModule`.
        KeyError: ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN_BS")
    if not node.CEM_ENABLED:
        return None
    high, low = (
        pick_levels(f"MODEL.EFPN_BS.{key}", node[key], levels)
        for key in ("CEM_FROM_LEVELS", "CEM_TO_LEVELS")
    )
    return ContextEnhancementModule(
        high,
        low,
        compressed_channels=node.CEM_COMPRESSED_CHANNELS,
        local_channels=node.CEM_LOCAL_CHANNELS,
    )
