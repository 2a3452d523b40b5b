"""The versions of the extension that ``MODEL.EFPN.PRESET`` chooses from."""

from dataclasses import dataclass

__all__ = ["PRESETS", "ExtensionPreset", "get_preset"]


@dataclass(frozen=True)
class ExtensionPreset:
    """Everything in which the three versions of the extension differ."""

    width_factor: int
    """Channels inside FTT as a multiple of the pyramid's C."""
    content_blocks: int
    """Residual blocks of E_c."""
    texture_blocks: int
    """Residual blocks of E_t, after the convolution that folds the concatenation."""
    bottleneck: bool
    """Bottleneck blocks and 1x1 instead of 3x3 convolutions around them."""
    reference_code: bool
    """The additions of the authors' code: head and tail convolutions, LeakyReLU, global skip."""
    routing: str
    """What ``MODEL.EFPN.ROUTING: auto`` stands for."""


PRESETS = {
    "paper": ExtensionPreset(1, 2, 2, bottleneck=False, reference_code=False, routing="reassign"),
    "reference": ExtensionPreset(
        2, 1, 2, bottleneck=False, reference_code=True, routing="duplicate"
    ),
    "fast": ExtensionPreset(1, 2, 2, bottleneck=True, reference_code=False, routing="reassign"),
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
