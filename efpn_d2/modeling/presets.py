"""The versions of the extension that ``MODEL.EFPN.PRESET`` chooses from."""

from dataclasses import dataclass

# The maps of stride 2 that P'2 can have its texture from: C'2 (Eq. 1), or what the stem makes.
TEXTURES = ("c2_prime", "stem_map")


@dataclass(frozen=True)
class ExtensionPreset:
    """Everything in which the versions of the extension differ."""

    width_factor: int
    """Channels inside FTT as a multiple of those of P'2."""
    content_blocks: int
    """Residual blocks of E_c."""
    texture_blocks: int
    """Residual blocks of E_t, after the convolution that folds the concatenation."""
    reference_code: bool
    """The additions of the authors' code: head and tail convolutions, LeakyReLU, global skip."""
    routing: str
    """What ``MODEL.EFPN.ROUTING: auto`` stands for."""
    texture: str = "c2_prime"
    """What ``MODEL.EFPN.TEXTURE: auto`` stands for."""
    channel_share: float = 1.0
    """Channels of P'2 and of FTT as a share of the pyramid's."""


PRESETS = {
    "paper": ExtensionPreset(1, 2, 2, reference_code=False, routing="reassign"),
    "reference": ExtensionPreset(2, 1, 2, reference_code=True, routing="duplicate"),
    "slim": ExtensionPreset(
        1,
        2,
        2,
        reference_code=False,
        routing="reassign",
        texture="stem_map",
        channel_share=3 / 16,
    ),
}


def get_preset(name: str) -> ExtensionPreset:
    """The preset of that name.

    Raises:
        ValueError: there is none; the message lists them.
    """
    if name not in PRESETS:
        raise ValueError(
            f"MODEL.EFPN.PRESET is '{name}', which does not exist: use one of {', '.join(PRESETS)}."
        )
    return PRESETS[name]


def get_texture(name: str, preset: str) -> str:
    """What ``MODEL.EFPN.TEXTURE`` says: one of ``TEXTURES``, or ``none``.

    Args:
        name: the key's value.
        preset: of ``MODEL.EFPN.PRESET``, which ``auto`` asks.

    Raises:
        ValueError: there is no such texture or preset.
    """
    texture = get_preset(preset).texture if name == "auto" else name
    if texture not in (*TEXTURES, "none"):
        raise ValueError(
            f"MODEL.EFPN.TEXTURE is '{name}', which does not exist: use one of auto, "
            f"{', '.join(TEXTURES)}, none."
        )
    return texture
