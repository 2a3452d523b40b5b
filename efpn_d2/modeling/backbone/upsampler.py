"""What makes P'3: the interface, and the registry that ``MODEL.EFPN.UPSAMPLER`` chooses from."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from detectron2.config import CfgNode
from fvcore.common.registry import Registry
from torch import Tensor, nn

UPSAMPLER_REGISTRY = Registry("UPSAMPLER")
"""Subclasses of :class:`Upsampler`, by the name of the class."""

# What the config calls them.
_SHORT_NAMES = {"ftt": "FeatureTextureTransfer", "espcn": "ESPCN", "nearest": "NearestUpsample"}


class Upsampler(nn.Module, ABC):
    """Makes P'3: the semantics of level 3 at the resolution of level 2.

    It is called with the number of channels C of the maps, and with what :meth:`from_config`
    returns. What reads level 3 alone is a step of its own, :meth:`upsample`, which
    :meth:`transfer` follows. A lazy P'2 runs both steps on windows of the maps and measures how far
    they read; with steps that read whole maps it is dense.
    """

    reads_level2: ClassVar[bool] = True
    """Whether :meth:`transfer` reads ``p2``."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of the constructor besides the number of channels; here, none."""
        return {}

    def forward(self, p3: Tensor, p2: Tensor) -> Tensor:
        """
        Args:
            p3: level-3 map (N, C, H, W), stride 8.
            p2: level-2 map (N, C, 2H, 2W), stride 4.

        Returns:
            P'3 (N, C, 2H, 2W), stride 4.
        """
        return self.transfer(self.upsample(p3), p2, p3)

    @abstractmethod
    def upsample(self, p3: Tensor) -> Tensor:
        """The content of p3 (N, C, H, W) at twice the resolution: (N, C_up, 2H, 2W)."""

    @abstractmethod
    def transfer(self, up: Tensor, p2: Tensor, p3: Tensor) -> Tensor:
        """P'3 (N, C, 2H, 2W) from :meth:`upsample` of p3, the texture of p2, and p3 itself."""


def get_upsampler(name: str) -> type[Upsampler]:
    """The up-sampler of that name.

    Args:
        name: of ``MODEL.EFPN.UPSAMPLER``: of a registered class, or ``ftt``, ``espcn`` or
            ``nearest``.

    Returns:
        The class.

    Raises:
        ValueError: there is none, or it is no :class:`Upsampler`.
    """
    registered = _SHORT_NAMES.get(name, name)
    if registered not in UPSAMPLER_REGISTRY:
        others = {found for found, _ in UPSAMPLER_REGISTRY}.difference(_SHORT_NAMES.values())
        raise ValueError(
            f"MODEL.EFPN.UPSAMPLER is '{name}', which does not exist: use one of "
            f"{', '.join((*_SHORT_NAMES, *sorted(others)))}, or register it in UPSAMPLER_REGISTRY."
        )
    kind = UPSAMPLER_REGISTRY.get(registered)
    if not (isinstance(kind, type) and issubclass(kind, Upsampler)):
        raise ValueError(
            f"MODEL.EFPN.UPSAMPLER is '{name}', which is registered but no subclass of Upsampler: "
            "derive it from efpn_d2.modeling.Upsampler."
        )
    return kind
