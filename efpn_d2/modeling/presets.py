"""Versions of the extension, selected by ``MODEL.EFPN.PRESET``."""

from dataclasses import dataclass

# Features of stride 2 that can be the texture of P'2: C'2 (Eq. 1), or the output of the stem.
TEXTURES = ("c2_prime", "stem_map")


@dataclass(frozen=True)
class ExtensionPreset:
    """All properties in which the versions of the extension differ."""

    width_factor: int
    """Channels inside FTT divided by the channels of P'2."""
    content_blocks: int
    """Residual blocks of E_c."""
    texture_blocks: int
    """Residual blocks of E_t, after the convolution that reduces the concatenation."""
    reference_code: bool
    """Add the parts of the authors' code: head and tail convolutions, LeakyReLU, global skip."""
    routing: str
    """Value of ``MODEL.EFPN.ROUTING: auto``."""
    texture: str = "c2_prime"
    """Value of ``MODEL.EFPN.TEXTURE: auto``."""
    channel_share: float = 1.0
    """Channels of P'2 and FTT divided by the channels of the pyramid."""


PRESETS = {
    "paper": ExtensionPreset(
        width_factor=1, content_blocks=2, texture_blocks=2, reference_code=False, routing="reassign"
    ),
    "reference": ExtensionPreset(
        width_factor=2, content_blocks=1, texture_blocks=2, reference_code=True, routing="duplicate"
    ),
    "slim": ExtensionPreset(
        width_factor=1,
        content_blocks=2,
        texture_blocks=2,
        reference_code=False,
        routing="reassign",
        texture="stem_map",
        channel_share=3 / 16,
    ),
}


def get_preset(name: str) -> ExtensionPreset:
    """Return the preset of that name.

    Raises:
        ValueError: if it is unknown; the message lists all presets.
    """
    if name not in PRESETS:
        raise ValueError(
            f"MODEL.EFPN.PRESET is '{name}', which does not exist: use one of {', '.join(PRESETS)}."
        )
    return PRESETS[name]


def get_texture(name: str, preset: str) -> str:
    """Return the texture that ``MODEL.EFPN.TEXTURE`` selects: one of ``TEXTURES``, or ``none``.

    Args:
        name: value of the key.
        preset: value of ``MODEL.EFPN.PRESET``, for ``auto``.

    Raises:
        ValueError: if the texture or the preset is unknown.
    """
    texture = get_preset(preset).texture if name == "auto" else name
    if texture not in (*TEXTURES, "none"):
        raise ValueError(
            f"MODEL.EFPN.TEXTURE is '{name}', which does not exist: use one of auto, "
            f"{', '.join(TEXTURES)}, none."
        )
    return texture
