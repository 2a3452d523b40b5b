"""Extension of the pyramid: all modules between the stock FPN and P'2."""

from collections.abc import Mapping
from typing import Any

import fvcore.nn.weight_init as weight_init
from detectron2.layers import Conv2d
from torch import Tensor, nn

from efpn_d2.layers import conv_layer, nearest_up2
from efpn_d2.modeling.backbone.ftt import FeatureTextureTransfer
from efpn_d2.modeling.backbone.upsampler import Upsampler
from efpn_d2.modeling.presets import get_preset


class PyramidExtension(nn.Module):
    """Compute P'3 and P'2 from a texture and the features of a stock FPN [paper III-A, Eq. 1].

    ``p3_prime = upsampler(merged3, merged2)``; ``p2_prime = output(lateral(texture) +
    nearest_up2(p3_prime))``. The lateral 1x1 and the output 3x3 convolution mirror FPN's own; Eq. 1
    omits them as it omits FPN's. The texture, of stride 2, is C'2 [paper], or the output of the
    stem [ours].

    The preset ``slim`` has fewer channels than the pyramid: 1x1 convolutions reduce the features of
    levels 2 and 3, and all following modules have the channels of P'2. [ours]
    """

    def __init__(
        self,
        c2_channels: int,
        channels: int,
        *,
        texture_channels: int | None = None,
        p2_prime_channels: int = 0,
        preset: str = "paper",
        upsampler: type[Upsampler] | None = None,
        upsampler_options: Mapping[str, Any] | None = None,
        norm: str = "",
        fuse_type: str = "sum",
        own_level2: bool = False,
    ) -> None:
        """
        Args:
            c2_channels: channels of C2.
            channels: C, channels of the pyramid.
            texture_channels: channels of the texture; None: those of C2, which C'2 shares; 0: no
                texture and no lateral convolution.
            p2_prime_channels: C', channels of P'2, of P'3 and inside; 0: the preset's share of C.
            preset: a key of :data:`efpn_d2.modeling.presets.PRESETS`.
            upsampler: class that computes P'3; None: :class:`FeatureTextureTransfer` of the preset.
            upsampler_options: arguments of ``upsampler`` besides its number of channels.
            norm: normalization after the convolutions, as in ``FPN``.
            fuse_type: ``sum`` (Eq. 1) or ``avg``, the same as the pyramid's.
            own_level2: whether to compute merged2 here, for a pyramid that ends at level 3
                (RetinaNet).

        Raises:
            ValueError: if the preset is unknown, or P'2 has no channels or more than the pyramid.
        """
        super().__init__()
        spec = get_preset(preset)
        own = p2_prime_channels or round(channels * spec.channel_share)
        if not 1 <= own <= channels:
            raise ValueError(
                f"MODEL.EFPN.P2_PRIME_CHANNELS is {p2_prime_channels}, but the pyramid has "
                f"{channels} channels: use 0 for the preset's share of them, or 1 to {channels}."
            )
        if upsampler is None:
            upsampler = FeatureTextureTransfer
            upsampler_options = {"preset": preset, "norm": norm, **(upsampler_options or {})}
        self.channels = own
        self.reduce3 = _fpn_conv(channels, own, 1, norm=norm) if own != channels else None
        self.reduce2 = None
        self.level2_lateral = None
        if own_level2:
            self.level2_lateral = _fpn_conv(c2_channels, own, 1, norm=norm)
        elif own != channels and upsampler.reads_level2:
            self.reduce2 = _fpn_conv(channels, own, 1, norm=norm)
        self.upsampler = upsampler(own, **(upsampler_options or {}))
        options = {"norm": norm, "bias": not spec.reference_code}
        if texture_channels is None:
            texture_channels = c2_channels
        self.lateral = _fpn_conv(texture_channels, own, 1, **options) if texture_channels else None
        self.output = _fpn_conv(own, own, 3, **options)
        self.average = fuse_type == "avg"
        self._ties_level2 = own_level2 and not upsampler.reads_level2

    def forward(
        self, texture: Tensor | None, merged2: Tensor, merged3: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute P'3 and P'2.

        Args:
            texture: C'2 or the output of the stem (N, C_t, 4H, 4W), stride 2; None without a
                lateral convolution.
            merged2: top-down features of level 2 (N, C, 2H, 2W), stride 4; with ``own_level2``, C2
                (N, C2, 2H, 2W).
            merged3: top-down features of level 3 (N, C, H, W), stride 8.

        Returns:
            P'3 (N, C', 2H, 2W), stride 4, and P'2 (N, C', 4H, 4W), stride 2.
        """
        p3_prime = self.p3_prime(merged2, merged3)
        return p3_prime, self.p2_prime(texture, p3_prime)

    def p3_prime(self, merged2: Tensor, merged3: Tensor) -> Tensor:
        """Compute P'3 (N, C', 2H, 2W); see :meth:`forward` for the arguments."""
        if self.reduce3 is not None:
            merged3 = self.reduce3(merged3)
        if self.level2_lateral is not None:
            merged2 = self._fuse(self.level2_lateral(merged2), merged3)
        elif self.reduce2 is not None:
            merged2 = self.reduce2(merged2)
        p3_prime = self.upsampler(merged3, merged2)
        if self._ties_level2:
            # Add 0 with a gradient path to a convolution whose output is not read.
            p3_prime = p3_prime + merged2[:0].sum()
        return p3_prime

    def p2_prime(self, texture: Tensor | None, p3_prime: Tensor) -> Tensor:
        """Compute P'2 (N, C', 4H, 4W); see :meth:`forward`."""
        if self.lateral is None or texture is None:
            return self.output(nearest_up2(p3_prime))
        return self.output(self._fuse(self.lateral(texture), p3_prime))

    def _fuse(self, lateral: Tensor, top_down: Tensor) -> Tensor:
        fused = lateral + nearest_up2(top_down)
        return fused / 2 if self.average else fused


def _fpn_conv(in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> Conv2d:
    """Build a convolution initialized as FPN's lateral and output convolutions."""
    return conv_layer(
        in_channels, out_channels, kernel_size, initialize=weight_init.c2_xavier_fill, **options
    )
