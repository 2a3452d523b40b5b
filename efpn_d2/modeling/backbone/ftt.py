"""Feature texture transfer [paper III-B] and the alternatives it is compared with.

Inside the pyramid they receive the features *before* the 3x3 output convolutions (``merged3``,
``merged2``), as in the authors' code.
"""

from dataclasses import replace
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from efpn_d2.layers import BRANCH_GAIN, ResidualBlock, SubPixelUpsample, conv_layer, nearest_up2
from efpn_d2.modeling.backbone.upsampler import UPSAMPLER_REGISTRY, Upsampler
from efpn_d2.modeling.presets import ExtensionPreset, get_preset

_LEAKY_SLOPE = 0.1


@UPSAMPLER_REGISTRY.register()
class FeatureTextureTransfer(Upsampler):
    """Compute P'3 from P3 (content) and P2 (texture reference) [paper Eq. 3].

    ``up = sub_pixel(E_c(p3))``, ``p3_prime = E_t(concat(p2, up)) + up``. The preset ``reference``
    adds tail convolutions and the nearest-upsampled p3, as in the authors' code.

    All learned corrections are initialized small, so P'3 starts close to the upsampled p3: an
    extension of a trained FPN keeps its semantics. [ours]
    """

    def __init__(
        self,
        channels: int,
        *,
        preset: str = "paper",
        width: int = 0,
        content_blocks: int = -1,
        texture_blocks: int = -1,
        norm: str = "",
    ) -> None:
        """
        Args:
            channels: C of p3, p2 and p3_prime.
            preset: a key of :data:`efpn_d2.modeling.presets.PRESETS`.
            width: channels inside; 0: chosen by the preset.
            content_blocks: residual blocks of E_c; -1: chosen by the preset.
            texture_blocks: residual blocks of E_t; -1: chosen by the preset.
            norm: normalization after each convolution of the extractors.

        Raises:
            ValueError: if the preset is unknown, or the width differs from C for a preset other
                than ``reference``, which has no convolutions to change it.
        """
        super().__init__()
        spec = get_preset(preset)
        width = width or channels * spec.width_factor
        if width != channels and not spec.reference_code:
            raise ValueError(
                f"MODEL.EFPN.WIDTH is {width}, but the preset '{preset}' adds its blocks to "
                f"features of {channels} channels: use {channels} (or 0), or the preset "
                "'reference'."
            )
        spec = replace(
            spec,
            content_blocks=spec.content_blocks if content_blocks < 0 else content_blocks,
            texture_blocks=spec.texture_blocks if texture_blocks < 0 else texture_blocks,
        )
        self.content_extractor = _content_extractor(channels, width, spec, norm)
        self.sub_pixel = _sub_pixel(width, spec)
        self.texture_extractor = _texture_extractor(channels, width, spec, norm)
        # None: the output is Eq. 3.
        self.tail = _tail(width, channels) if spec.reference_code else None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor except ``channels``, from ``cfg.MODEL.EFPN``."""
        node = cfg.MODEL.EFPN
        return {
            "preset": node.PRESET,
            "width": node.WIDTH,
            "content_blocks": node.CONTENT_BLOCKS,
            "texture_blocks": node.TEXTURE_BLOCKS,
            "norm": node.NORM,
        }

    def upsample(self, p3: Tensor) -> Tensor:
        """Compute the content of p3 (N, C, H, W) at twice the resolution: (N, width, 2H, 2W)."""
        return self.sub_pixel(self.content_extractor(p3))

    def transfer(self, up: Tensor, p2: Tensor, p3: Tensor) -> Tensor:
        """Compute P'3 from :meth:`upsample` of p3, the texture of p2, and p3 itself."""
        p3_prime = self.texture_extractor(torch.cat([p2, up], dim=1)) + up
        if self.tail is not None:
            p3_prime = self.tail(p3_prime) + nearest_up2(p3)
        return p3_prime


@UPSAMPLER_REGISTRY.register()
class ESPCN(Upsampler):
    """Three-layer sub-pixel network on P3 alone, the paper's baseline for FTT [Table II].

    It is conv5x5 - tanh - conv3x3 - tanh - sub-pixel convolution, with 64 and 32 hidden channels as
    in the ESPCN article.
    """

    reads_level2 = False

    def __init__(self, channels: int, *, hidden: tuple[int, int] = (64, 32)) -> None:
        """
        Args:
            channels: C of p3 and p3_prime.
            hidden: channels after the first and the second convolution.
        """
        super().__init__()
        self.features = nn.Sequential(
            conv_layer(channels, hidden[0], 5),
            nn.Tanh(),
            conv_layer(hidden[0], hidden[1], 3),
            nn.Tanh(),
        )
        self.sub_pixel = SubPixelUpsample(hidden[1], channels)

    def upsample(self, p3: Tensor) -> Tensor:
        """Compute P'3 (N, C, 2H, 2W) from p3 (N, C, H, W)."""
        return self.sub_pixel(self.features(p3))

    def transfer(self, up: Tensor, p2: Tensor, p3: Tensor) -> Tensor:
        """Return ``up`` unchanged."""
        return up


@UPSAMPLER_REGISTRY.register()
class NearestUpsample(Upsampler):
    """Nearest-neighbor upsampling of P3: the pyramid "without FTT" of the paper's Table III."""

    reads_level2 = False

    def __init__(self, channels: int) -> None:
        """
        Args:
            channels: C of p3 and p3_prime, for the sake of one interface.
        """
        super().__init__()

    def upsample(self, p3: Tensor) -> Tensor:
        """Upsample p3 (N, C, H, W) to P'3 (N, C, 2H, 2W)."""
        return nearest_up2(p3)

    def transfer(self, up: Tensor, p2: Tensor, p3: Tensor) -> Tensor:
        """Return ``up`` unchanged."""
        return up


class _Skip(nn.Sequential):
    """``x + layers(x)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute the sum for x (N, C, H, W)."""
        out = x
        for layer in self:
            out = layer(out)
        return x + out


def _blocks(count: int, width: int, spec: ExtensionPreset, norm: str) -> list[nn.Module]:
    return [
        ResidualBlock(width, norm=norm, relu_after_add=spec.reference_code) for _ in range(count)
    ]


def _content_extractor(
    channels: int, width: int, spec: ExtensionPreset, norm: str
) -> nn.Sequential:
    blocks = _blocks(spec.content_blocks, width, spec, norm)
    if not spec.reference_code:
        return nn.Sequential(*blocks)
    head = [conv_layer(channels, width, 3, norm=norm), nn.LeakyReLU(_LEAKY_SLOPE)]
    return nn.Sequential(*head, _Skip(*blocks)) if blocks else nn.Sequential(*head)


def _sub_pixel(width: int, spec: ExtensionPreset) -> nn.Module:
    upsample = SubPixelUpsample(width, width)
    if not spec.reference_code:
        return upsample
    return nn.Sequential(upsample, nn.LeakyReLU(_LEAKY_SLOPE))


def _texture_extractor(
    channels: int, width: int, spec: ExtensionPreset, norm: str
) -> nn.Sequential:
    layers: list[nn.Module] = [conv_layer(channels + width, width, 3, norm=norm, gain=BRANCH_GAIN)]
    if spec.reference_code:
        layers.append(nn.LeakyReLU(_LEAKY_SLOPE))
    return nn.Sequential(*layers, *_blocks(spec.texture_blocks, width, spec, norm))


def _tail(width: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv_layer(width, width, 3),
        nn.LeakyReLU(_LEAKY_SLOPE),
        conv_layer(width, channels, 3, gain=BRANCH_GAIN),
    )
