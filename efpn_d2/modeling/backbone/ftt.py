"""Feature texture transfer (paper III-B) and what the paper compares it with.

The three up-samplers have one interface, ``forward(p3, p2) -> p3_prime``: the maps of levels 3 and
2 in, the semantics of level 3 at the resolution of level 2 out. Inside the pyramid they receive the
maps *before* the 3x3 output convolutions (``merged3``, ``merged2``), as the authors' code does.
What reads p3 alone is a step of its own, ``upsample``, followed by ``transfer``.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from efpn_d2.layers import (
    BRANCH_GAIN,
    ResidualBlock,
    SubPixelUpsample,
    conv_layer,
    nearest_up2,
)
from efpn_d2.modeling.presets import ExtensionPreset, get_preset

UPSAMPLERS = ("ftt", "espcn", "nearest")

_LEAKY_SLOPE = 0.1


class Upsampler(nn.Module):
    """What makes P'3."""

    def forward(self, p3: Tensor, p2: Tensor) -> Tensor:
        """
        Args:
            p3: level-3 map (N, C, H, W), stride 8.
            p2: level-2 map (N, C, 2H, 2W), stride 4.

        Returns:
            P'3 (N, C, 2H, 2W), stride 4.
        """
        return self.transfer(self.upsample(p3), p2, p3)

    def upsample(self, p3: Tensor) -> Tensor:
        """The content of p3 (N, C, H, W) at twice the resolution: (N, C_up, 2H, 2W)."""
        raise NotImplementedError

    def transfer(self, up: Tensor, p2: Tensor, p3: Tensor) -> Tensor:
        """P'3 from :meth:`upsample` of p3, the texture of p2, and p3 itself."""
        raise NotImplementedError


class FeatureTextureTransfer(Upsampler):
    """P'3 from P3 (content) and P2 (texture reference) [paper Eq. 3].

    ``up = sub_pixel(E_c(p3))``, ``p3_prime = E_t(concat(p2, up)) + up``. The preset ``reference``
    follows it by tail convolutions and adds the nearest-upsampled p3, as the authors' code does.

    At the start all learnt corrections are small, and P'3 is nearly p3 up-sampled: a trained FPN
    keeps its semantics when it gets an extension. [ours]
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
            width: channels inside; 0: the preset's.
            content_blocks: residual blocks of E_c; -1: the preset's.
            texture_blocks: residual blocks of E_t; -1: the preset's.
            norm: normalisation after each convolution of the extractors.

        Raises:
            ValueError: unknown preset; or a width that differs from C where only ``reference`` has
                convolutions to change it.
        """
        super().__init__()
        spec = get_preset(preset)
        width = width or channels * spec.width_factor
        if width != channels and not spec.reference_code:
            raise ValueError(
                f"MODEL.EFPN.WIDTH is {width}, but the preset '{preset}' adds its blocks to maps "
                f"of {channels} channels: use {channels} (or 0), or the preset 'reference'."
            )
        spec = replace(
            spec,
            content_blocks=spec.content_blocks if content_blocks < 0 else content_blocks,
            texture_blocks=spec.texture_blocks if texture_blocks < 0 else texture_blocks,
        )
        self.content_extractor = _content_extractor(channels, width, spec, norm)
        self.sub_pixel = _sub_pixel(width, spec)
        self.texture_extractor = _texture_extractor(channels, width, spec, norm)
        # None: Eq. 3 is the output.
        self.tail = _tail(width, channels) if spec.reference_code else None

    def upsample(self, p3: Tensor) -> Tensor:
        """The content of p3 (N, C, H, W) at twice the resolution: (N, width, 2H, 2W)."""
        return self.sub_pixel(self.content_extractor(p3))

    def transfer(self, up: Tensor, p2: Tensor, p3: Tensor) -> Tensor:
        """P'3 from :meth:`upsample` of p3, the texture of p2, and p3 itself."""
        p3_prime = self.texture_extractor(torch.cat([p2, up], dim=1)) + up
        if self.tail is not None:
            p3_prime = self.tail(p3_prime) + nearest_up2(p3)
        return p3_prime


class ESPCN(Upsampler):
    """Three-layer sub-pixel network on P3 alone, the paper's single-image rival of FTT [Table II].

    conv5x5 - tanh - conv3x3 - tanh - sub-pixel convolution, with 64 and 32 hidden channels as ESPCN
    has them; ``p2`` is taken for the sake of one interface and not read.
    """

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
        """P'3."""
        return self.sub_pixel(self.features(p3))

    def transfer(self, up: Tensor, p2: Tensor, p3: Tensor) -> Tensor:
        """``up`` as it is."""
        return up


class NearestUpsample(Upsampler):
    """P3 up-sampled by nearest neighbours: the pyramid "without FTT" of the paper's Table III."""

    def upsample(self, p3: Tensor) -> Tensor:
        """P'3."""
        return nearest_up2(p3)

    def transfer(self, up: Tensor, p2: Tensor, p3: Tensor) -> Tensor:
        """``up`` as it is."""
        return up


def build_upsampler(name: str, channels: int, **ftt_options: Any) -> Upsampler:
    """The module that makes P'3.

    Args:
        name: ``ftt``, ``espcn`` or ``nearest``.
        channels: C of p3, p2 and p3_prime.
        ftt_options: those of :class:`FeatureTextureTransfer`; the others have none.

    Raises:
        ValueError: unknown name, or see :class:`FeatureTextureTransfer`.
    """
    if name == "ftt":
        return FeatureTextureTransfer(channels, **ftt_options)
    if name == "espcn":
        return ESPCN(channels)
    if name == "nearest":
        return NearestUpsample()
    raise ValueError(
        f"MODEL.EFPN.UPSAMPLER is '{name}', which does not exist: use one of "
        f"{', '.join(UPSAMPLERS)}."
    )


class _Skip(nn.Sequential):
    """``x + layers(x)``."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
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
