"""Rules that route boxes to the small heads, which read P'2, or to the stock heads."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from fvcore.common.registry import Registry
from torch import Tensor, nn

from efpn_d2.config import SMALL_BOX_SIZE, require_node
from efpn_d2.modeling.presets import get_preset

_MODES = ("reassign", "duplicate", "none")

BOX_ROUTER_REGISTRY = Registry("BOX_ROUTER")
"""Subclasses of :class:`BoxRouter`, by the name of the class; built by :func:`build_box_router`."""


class BoxRouter(nn.Module, ABC):
    """Decide which boxes are small, and which heads read them.

    The same router is used by the ROI heads, the multi-scale test and the dataset advice.
    """

    @configurable
    def __init__(self, *, mode: str = "reassign") -> None:
        """
        Args:
            mode: ``reassign``: the small heads read small boxes and the stock heads all others;
                ``duplicate``: the stock heads read all boxes; ``none``: there are no small heads.

        Raises:
            ValueError: if ``mode`` is unknown.
        """
        super().__init__()
        if mode not in _MODES:
            raise ValueError(
                f"MODEL.EFPN.ROUTING is '{mode}', which does not exist: use auto or one of "
                f"{', '.join(_MODES)}."
            )
        self.mode = mode

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Raises:
            ValueError: if the preset, which ``ROUTING: auto`` reads, is unknown.
            KeyError: if ``add_efpn_config`` was not called.
        """
        return {"mode": routing_mode(cfg)}

    @abstractmethod
    def forward(self, boxes: Tensor) -> Tensor:
        """Decide which boxes are small.

        Args:
            boxes: (R, 4), x1, y1, x2, y2 in pixels of the network's input.

        Returns:
            Bool tensor (R,): the box is small.
        """

    def at_scale(self, scale: float) -> "BoxRouter":
        """Return a router that treats an object at ``scale`` as this router does at scale 1."""
        return _ScaledRouter(self, scale)

    def describe(self) -> str:
        """Describe the small boxes, e.g. "below 56 px"."""
        return f"by {type(self).__name__}"


@BOX_ROUTER_REGISTRY.register()
class SizeRouter(BoxRouter):
    """Route boxes by :func:`is_small_box` [paper IV-A3]."""

    @configurable
    def __init__(self, *, small_box_size: float = SMALL_BOX_SIZE, **kwargs: Any) -> None:
        """
        Args:
            small_box_size: boxes with a smaller sqrt(w * h) are small, in pixels of the network's
                input.
            kwargs: see :class:`BoxRouter`.

        Raises:
            ValueError: if ``small_box_size`` is not positive; see also :class:`BoxRouter`.
        """
        super().__init__(**kwargs)
        if small_box_size <= 0:
            raise ValueError(
                f"MODEL.EFPN.SMALL_BOX_SIZE is {small_box_size}, but it is a length in pixels: use "
                "a positive number, or MODEL.EFPN.ROUTING none to route no boxes to P'2."
            )
        self.small_box_size = small_box_size

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Raises:
            ValueError: see :class:`BoxRouter`.
            KeyError: if ``add_efpn_config`` was not called.
        """
        ret = super().from_config(cfg)
        return {**ret, "small_box_size": cfg.MODEL.EFPN.SMALL_BOX_SIZE}

    def forward(self, boxes: Tensor) -> Tensor:
        """Return (R,) bool for boxes (R, 4): the box is small."""
        return is_small_box(boxes, self.small_box_size)

    def describe(self) -> str:
        """Return the limit of the size."""
        return f"below {self.small_box_size:g} px"


class _ScaledRouter(BoxRouter):
    """Apply a router to boxes that are rescaled to scale 1."""

    def __init__(self, router: BoxRouter, scale: float) -> None:
        super().__init__(mode=router.mode)
        self.router = router
        self.scale = scale

    def forward(self, boxes: Tensor) -> Tensor:
        """Return (R,) bool for boxes (R, 4): the box is small."""
        return self.router(boxes / self.scale)

    def describe(self) -> str:
        """Return the description of the router and the scale."""
        return f"{self.router.describe()} at scale {self.scale:g}"


def build_box_router(cfg: CfgNode) -> BoxRouter:
    """Build the router that ``MODEL.EFPN.ROUTER`` names, with the mode ``MODEL.EFPN.ROUTING``.

    Args:
        cfg: a config.

    Raises:
        ValueError: if the name is unknown, or the router refuses the config.
        KeyError: if ``add_efpn_config`` was not called.
    """
    name = require_node(cfg, "MODEL.EFPN").ROUTER
    if name not in BOX_ROUTER_REGISTRY:
        names = ", ".join(found for found, _ in BOX_ROUTER_REGISTRY)
        raise ValueError(
            f"MODEL.EFPN.ROUTER is '{name}', which does not exist: use one of {names}, or register "
            "it in BOX_ROUTER_REGISTRY."
        )
    return BOX_ROUTER_REGISTRY.get(name)(cfg)


def routing_mode(cfg: CfgNode) -> str:
    """Return the value of ``MODEL.EFPN.ROUTING``, for ``auto`` that of the preset.

    Args:
        cfg: a config.

    Raises:
        ValueError: if the preset is unknown.
        KeyError: if ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN")
    return get_preset(node.PRESET).routing if node.ROUTING == "auto" else node.ROUTING


def is_small_box(boxes: Tensor, small_box_size: float) -> Tensor:
    """Check whether boxes belong to P'2: ``sqrt(w * h) < small_box_size`` [paper Eq. 2, IV-A3].

    With 56 pixels this is Eq. 2 with l0 = 4 and minimum level 1.

    Args:
        boxes: (R, 4), x1, y1, x2, y2 in pixels of the network's input.
        small_box_size: in the same pixels.

    Returns:
        Bool tensor (R,).
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return torch.sqrt(sides[:, 0] * sides[:, 1]) < small_box_size
