"""Interface of the modules that compute P'3, and the registry of ``MODEL.EFPN.UPSAMPLER``."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from detectron2.config import CfgNode
from fvcore.common.registry import Registry
from torch import Tensor, nn

UPSAMPLER_REGISTRY = Registry("UPSAMPLER")
"""Subclasses of :class:`Upsampler`, by the name of the class."""

# Short names in the config.
_SHORT_NAMES = {"ftt": "FeatureTextureTransfer", "espcn": "ESPCN", "nearest": "NearestUpsample"}


class Upsampler(nn.Module, ABC):
    """Compute P'3: the semantics of level 3 at the resolution of level 2.

    The constructor is called with the number of channels C of the features and the result of
    :meth:`from_config`. The part that reads level 3 only is a separate step, :meth:`upsample`,
    followed by :meth:`transfer`. A lazy P'2 runs both steps on windows of the features and measures
    their receptive fields; if a step needs whole features, P'2 is dense.
    """

    reads_level2: ClassVar[bool] = True
    """Whether :meth:`transfer` reads ``p2``."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor besides the channels; none by default."""
        return {}

    def forward(self, p3: Tensor, p2: Tensor) -> Tensor:
        """Compute P'3.

        Args:
            p3: features of level 3 (N, C, H, W), stride 8.
            p2: features of level 2 (N, C, 2H, 2W), stride 4.

        Returns:
            P'3 (N, C, 2H, 2W), stride 4.
        """
        return self.transfer(self.upsample(p3), p2, p3)

    @abstractmethod
    def upsample(self, p3: Tensor) -> Tensor:
        """Compute the content of p3 (N, C, H, W) at twice the resolution: (N, C_up, 2H, 2W)."""

    @abstractmethod
    def transfer(self, up: Tensor, p2: Tensor, p3: Tensor) -> Tensor:
        """Compute P'3 (N, C, 2H, 2W) from :meth:`upsample` of p3, the texture p2, and p3 itself."""


def get_upsampler(name: str) -> type[Upsampler]:
    """Return the upsampler class of that name.

    Args:
        name: value of ``MODEL.EFPN.UPSAMPLER``: name of a registered class, ``ftt``, ``espcn`` or
            ``nearest``.

    Raises:
        ValueError: if the name is unknown, or not of an :class:`Upsampler`.
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
            f"MODEL.EFPN.UPSAMPLER is '{name}', which is registered but not a subclass of "
            "Upsampler: derive it from efpn_d2.modeling.Upsampler."
        )
    return kind
