"""The extension of the pyramid: everything between the stock FPN and P'2."""

import fvcore.nn.weight_init as weight_init
from detectron2.layers import Conv2d, get_norm
from torch import Tensor, nn

from efpn_d2.layers import nearest_up2

from .ftt import ESPCN, FeatureTextureTransfer, NearestUpsample, get_preset

__all__ = ["UPSAMPLERS", "PyramidExtension"]

UPSAMPLERS = ("ftt", "espcn", "nearest")


class PyramidExtension(nn.Module):
    """P'3 and P'2 from C'2 and the maps of a stock FPN [paper III-A, Eq. 1].

    ``p3_prime = upsampler(merged3, merged2)``;
    ``p2_prime = output(lateral(c2_prime) + nearest_up2(p3_prime))``. Lateral 1x1 and output 3x3
    convolution mirror FPN's own; Eq. 1 leaves them out as it leaves out FPN's.
    """

    def __init__(
        self,
        c2_channels: int,
        channels: int,
        *,
        preset: str = "paper",
        upsampler: str = "ftt",
        width: int = 0,
        content_blocks: int = -1,
        texture_blocks: int = -1,
        norm: str = "",
        fuse_type: str = "sum",
        own_level2: bool = False,
    ) -> None:
        """
        Args:
            c2_channels: channels of C2, which C'2 shares.
            channels: C, channels of the pyramid.
            preset: ``paper``, ``reference`` or ``fast``, see :mod:`efpn_d2.modeling.backbone.ftt`.
            upsampler: ``ftt``, ``espcn`` or ``nearest``.
            width, content_blocks, texture_blocks: see :class:`FeatureTextureTransfer`.
            norm: normalisation after the convolutions, as in ``FPN``.
            fuse_type: ``sum`` (Eq. 1) or ``avg``, the same as the pyramid's.
            own_level2: the pyramid ends at level 3 (RetinaNet): make merged2 here.

        Raises:
            ValueError: unknown preset or upsampler.
        """
        super().__init__()
        spec = get_preset(preset)
        self.upsampler = _build_upsampler(
            upsampler,
            channels,
            preset=preset,
            width=width,
            content_blocks=content_blocks,
            texture_blocks=texture_blocks,
            norm=norm,
        )
        bias = norm == "" and not spec.reference_code
        self.lateral = _fpn_conv(c2_channels, channels, 1, norm, bias)
        self.output = (
            _separable_conv(channels, norm)
            if spec.bottleneck
            else _fpn_conv(channels, channels, 3, norm, bias)
        )
        self.level2_lateral = (
            _fpn_conv(c2_channels, channels, 1, norm, norm == "") if own_level2 else None
        )
        self.average = fuse_type == "avg"

    def forward(self, c2_prime: Tensor, merged2: Tensor, merged3: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            c2_prime: C'2 (N, C2, 4H, 4W), stride 2.
            merged2: top-down map of level 2 (N, C, 2H, 2W), stride 4; with ``own_level2``, C2
                (N, C2, 2H, 2W).
            merged3: top-down map of level 3 (N, C, H, W), stride 8.

        Returns:
            P'3 (N, C, 2H, 2W), stride 4, and P'2 (N, C, 4H, 4W), stride 2.
        """
        if self.level2_lateral is not None:
            merged2 = self._fuse(self.level2_lateral(merged2), merged3)
        p3_prime = self.upsampler(merged3, merged2)
        p2_prime = self.output(self._fuse(self.lateral(c2_prime), p3_prime))
        return p3_prime, p2_prime

    def _fuse(self, lateral: Tensor, top_down: Tensor) -> Tensor:
        fused = lateral + nearest_up2(top_down)
        return fused / 2 if self.average else fused


def _build_upsampler(
    name: str,
    channels: int,
    *,
    preset: str,
    width: int,
    content_blocks: int,
    texture_blocks: int,
    norm: str,
) -> nn.Module:
    if name == "ftt":
        return FeatureTextureTransfer(
            channels,
            preset=preset,
            width=width,
            content_blocks=content_blocks,
            texture_blocks=texture_blocks,
            norm=norm,
        )
    if name == "espcn":
        return ESPCN(channels)
    if name == "nearest":
        return NearestUpsample()
    raise ValueError(
        f"MODEL.EFPN.UPSAMPLER is '{name}', which does not exist: use one of "
        f"{', '.join(UPSAMPLERS)}."
    )


def _fpn_conv(
    in_channels: int, out_channels: int, kernel_size: int, norm: str, bias: bool, groups: int = 1
) -> Conv2d:
    """A convolution initialised as FPN initialises its lateral and output convolutions."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        groups=groups,
        bias=bias,
        norm=get_norm(norm, out_channels),
    )
    weight_init.c2_xavier_fill(conv)
    return conv


def _separable_conv(channels: int, norm: str) -> nn.Sequential:
    """Depthwise 3x3 and pointwise 1x1: the ``fast`` output convolution. [ours]"""
    return nn.Sequential(
        _fpn_conv(channels, channels, 3, "", False, groups=channels),
        _fpn_conv(channels, channels, 1, norm, norm == ""),
    )
