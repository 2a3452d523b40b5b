"""Routing of boxes between the small heads, which read P'2, and the stock heads: the rules."""

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
    """Says which boxes are small, and what happens to them.

    The ROI heads, the test at several scales and the advice on a data set ask the same router.
    """

    @configurable
    def __init__(self, *, mode: str = "reassign") -> None:
        """
        Args:
            mode: ``reassign``: the small heads have small boxes and the stock heads all others;
                ``duplicate``: the stock heads have all boxes; ``none``: there are no small heads.

        Raises:
            ValueError: ``mode`` is unknown.
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
        """The arguments of the constructor.

        Raises:
            ValueError: there is no such preset, which ``ROUTING: auto`` asks.
            KeyError: ``add_efpn_config`` was not called.
        """
        return {"mode": routing_mode(cfg)}

    @abstractmethod
    def forward(self, boxes: Tensor) -> Tensor:
        """
        Args:
            boxes: (R, 4), x1, y1, x2, y2 in pixels of the network's input.

        Returns:
            Bool tensor (R,): the box is small.
        """

    def at_scale(self, scale: float) -> "BoxRouter":
        """The router by which an object is small at ``scale`` if it is by this one at scale 1."""
        return _ScaledRouter(self, scale)

    def describe(self) -> str:
        """Which boxes are small, to follow a name: "p2_prime <below 56 px>"."""
        return f"by {type(self).__name__}"


@BOX_ROUTER_REGISTRY.register()
class SizeRouter(BoxRouter):
    """A box is small by :func:`is_small_box` [paper IV-A3]."""

    @configurable
    def __init__(self, *, small_box_size: float = SMALL_BOX_SIZE, **kwargs: Any) -> None:
        """
        Args:
            small_box_size: boxes with sqrt(w * h) below it, in pixels of the network's input, are
                small.
            kwargs: those of :class:`BoxRouter`.

        Raises:
            ValueError: ``small_box_size`` is not positive, or see :class:`BoxRouter`.
        """
        super().__init__(**kwargs)
        if small_box_size <= 0:
            raise ValueError(
                f"MODEL.EFPN.SMALL_BOX_SIZE is {small_box_size}, but it is a length in pixels: use "
                "a positive number, or MODEL.EFPN.ROUTING none to send no box to P'2."
            )
        self.small_box_size = small_box_size

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of the constructor; see :class:`BoxRouter` for what is raised."""
        ret = super().from_config(cfg)
        return {**ret, "small_box_size": cfg.MODEL.EFPN.SMALL_BOX_SIZE}

    def forward(self, boxes: Tensor) -> Tensor:
        """Boxes (R, 4) -> bool (R,)."""
        return is_small_box(boxes, self.small_box_size)

    def describe(self) -> str:
        """As in the base class."""
        return f"below {self.small_box_size:g} px"


class _ScaledRouter(BoxRouter):
    """Asks a router about boxes brought back to scale 1."""

    def __init__(self, router: BoxRouter, scale: float) -> None:
        super().__init__(mode=router.mode)
        self.router = router
        self.scale = scale

    def forward(self, boxes: Tensor) -> Tensor:
        """Boxes (R, 4) -> bool (R,)."""
        return self.router(boxes / self.scale)

    def describe(self) -> str:
        """As in the base class."""
        return f"{self.router.describe()} at scale {self.scale:g}"


def build_box_router(cfg: CfgNode) -> BoxRouter:
    """The router that ``MODEL.EFPN.ROUTER`` names.

    Args:
        cfg: a config.

    Returns:
        The router, with ``MODEL.EFPN.ROUTING`` as its mode.

    Raises:
        ValueError: there is none of that name, or the router refuses the config.
        KeyError: ``add_efpn_config`` was not called.
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
    """What ``MODEL.EFPN.ROUTING`` stands for; ``auto``: the preset's.

    Args:
        cfg: a config.

    Returns:
        ``reassign``, ``duplicate`` or ``none``, or whatever else the key says.

    Raises:
        ValueError: there is no such preset.
        KeyError: ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN")
    return get_preset(node.PRESET).routing if node.ROUTING == "auto" else node.ROUTING


def is_small_box(boxes: Tensor, small_box_size: float) -> Tensor:
    """Whether a box belongs to P'2: ``sqrt(w * h) < small_box_size`` [paper Eq. 2, IV-A3].

    With 56 pixels this is Eq. 2 with l0 = 4 and minimum level 1.

    Args:
        boxes: (R, 4), x1, y1, x2, y2 in pixels of the network's input.
        small_box_size: in the same pixels.

    Returns:
        Bool tensor (R,).
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return torch.sqrt(sides[:, 0] * sides[:, 1]) < small_box_size
