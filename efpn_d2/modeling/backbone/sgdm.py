"""Razor dynamic convolution and the static-guided dynamic module.

A reconstruction from the abstract of the article that proposes both, which is all of it that is
public: the abstract names the parts and what they are for, their inside is ours.
"""

import torch
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from efpn_d2.config import require_node
from efpn_d2.layers import (
    KernelGenerator,
    SharedAsymmetricKernels,
    depthwise_per_image,
    is_watched,
    summed_depthwise_per_image,
)
from efpn_d2.modeling.checks import check_features, check_positive


class RazorDynamicConv(nn.Module):
    """Depthwise dynamic convolution (RDConv) of a part of the channels; the others pass through.

    Only the first C / razor_ratio channels are read by the kernel generator and convolved, each
    image with kernels of its own. The kernels are ``dW(x)``, a channel branch times a spatial one;
    with a static guide they are ``W_static * (1 + dW(x))``, and dW starts at zero: at first that is
    exactly the static convolution. As |dW| < 1, a guided weight never changes its sign and is never
    more than twice the static one.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int = 3,
        razor_ratio: int = 4,
        reduction: int = 4,
        static_kernels: nn.Module | None = None,
    ) -> None:
        """
        Args:
            channels: C.
            kernel_size: k, odd.
            razor_ratio: rho, a divisor of C.
            reduction: of the channel branch's hidden layer.
            static_kernels: the guide, a module whose ``forward()`` returns W_static of shape
                (C / razor_ratio, k, k); None: no guide.

        Raises:
            ValueError: ``kernel_size`` or ``razor_ratio`` is not as said above, or ``reduction`` is
                below 1.
        """
        super().__init__()
        _check_kernel(channels, kernel_size, razor_ratio)
        check_positive("MODEL.SGDM", REDUCTION=reduction)
        self.dynamic_channels = channels // razor_ratio
        self.passed_channels = channels - self.dynamic_channels
        self.generator = KernelGenerator(self.dynamic_channels, kernel_size, reduction)
        self.static_kernels = static_kernels
        if static_kernels is not None:
            self.generator.start_at_zero()

    def kernels(self, x: Tensor) -> Tensor:
        """W of maps (N, C, H, W): (N, C / razor_ratio, k, k)."""
        change = self.generator(x[:, : self.dynamic_channels])
        return change if self.static_kernels is None else self.static_kernels() * (1 + change)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W); N may be 0."""
        convolved = depthwise_per_image(x[:, : self.dynamic_channels], self.kernels(x))
        return torch.cat([convolved, x[:, self.dynamic_channels :]], dim=1)

    def projected(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``conv2d(self(x), weight, bias)`` with one output channel, without making ``self(x)``.

        That has the size of ``x``: to write and read it takes longer than to compute it.

        Args:
            x: maps (N, C, H, W); N may be 0.
            weight: (1, C, 1, 1).
            bias: (1,).

        Returns:
            (N, 1, H, W).
        """
        c = self.dynamic_channels
        dynamic = summed_depthwise_per_image(x[:, :c], self.kernels(x) * weight[:, :c])
        if self.passed_channels == 0:
            return dynamic if bias is None else dynamic + bias
        return dynamic + F.conv2d(x[:, c:], weight[:, c:], bias)


class StaticGuidedDynamicModule(CNNBlockBase):
    """SGDM: spatial attention from a statically guided dynamic convolution.

    ``y = x * 2 sigmoid(proj(RDConv(x)))``, with one attention map for all channels. ``proj`` starts
    at zero and the factor 2 = 1 / sigmoid(0) makes the gate 1 there: inserted into a trained
    network, the block is bitwise the identity at first. Up to that factor, which the next
    convolution's weights could hold as well, it is the plain sigmoid gate.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int = 3,
        razor_ratio: int = 4,
        reduction: int = 4,
        shared_kernels: int = 4,
        static_guide: bool = True,
    ) -> None:
        """
        Args:
            channels: C.
            kernel_size, razor_ratio, reduction: those of :class:`RazorDynamicConv`.
            shared_kernels: static kernels of each shape that all channels share.
            static_guide: False: the kernels are the dynamic ones alone, for comparison.

        Raises:
            ValueError: see :class:`RazorDynamicConv`; or ``shared_kernels`` is below 1.
        """
        super().__init__(channels, channels, stride=1)
        _check_kernel(channels, kernel_size, razor_ratio)
        check_positive("MODEL.SGDM", SHARED_KERNELS=shared_kernels)
        static_kernels = None
        if static_guide:
            static_kernels = SharedAsymmetricKernels(
                channels // razor_ratio, kernel_size, shared_kernels
            )
        self.dynamic_conv = RazorDynamicConv(
            channels,
            kernel_size=kernel_size,
            razor_ratio=razor_ratio,
            reduction=reduction,
            static_kernels=static_kernels,
        )
        self.proj = Conv2d(channels, 1, kernel_size=1)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def attention(self, x: Tensor) -> Tensor:
        """The gate of maps (N, C, H, W): (N, 1, H, W), in (0, 2)."""
        if not torch.jit.is_scripting() and self._is_watched():
            return 2 * torch.sigmoid(self.proj(self.dynamic_conv(x)))
        return 2 * torch.sigmoid(self.dynamic_conv.projected(x, self.proj.weight, self.proj.bias))

    @torch.jit.unused
    def _is_watched(self) -> bool:
        return is_watched(self.proj) or is_watched(self.dynamic_conv, within=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W); N may be 0."""
        return x * self.attention(x)


class PyramidSGDM(nn.ModuleDict):
    """One SGDM for each of some levels; the other maps pass through.

    It runs on the finished outputs: a level that a top block makes from another is made from that
    one's map as it was before.
    """

    def changed_levels(self) -> tuple[str, ...]:
        """Those that have a block."""
        return tuple(self)

    def forward(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """A pyramid's outputs, each (N, C, H_l, W_l) -> the same names and shapes."""
        attended = {name: x for name, x in outputs.items()}  # noqa: C416  scripted
        for name, block in self.items():
            attended[name] = block(attended[name])
        return attended


def build_sgdm(cfg: CfgNode, channels: int) -> StaticGuidedDynamicModule:
    """A block for maps of ``channels`` channels, as ``MODEL.SGDM`` says.

    Raises:
        ValueError: see :class:`RazorDynamicConv`.
        KeyError: ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.SGDM")
    return StaticGuidedDynamicModule(
        channels,
        kernel_size=node.KERNEL_SIZE,
        razor_ratio=node.RAZOR_RATIO,
        reduction=node.REDUCTION,
        shared_kernels=node.SHARED_KERNELS,
        static_guide=node.STATIC_GUIDE,
    )


def add_sgdm_after_stages(cfg: CfgNode, bottom_up: Backbone) -> None:
    """End each stage of ``MODEL.SGDM.AFTER_STAGES`` in a block, in place.

    The block becomes the stage's last child, ``res{i}.sgdm``: no key of the stock network is
    renamed, its ``forward`` stays as it is, and whatever else runs a stage runs its block too. So
    C'2 gets the block of ``res2``, with the same weights, just as it gets the rest of ``res2``; its
    kernels come from C'2 itself. A block is trained even where FREEZE_AT froze its stage.

    Args:
        cfg: a config.
        bottom_up: a ResNet, :class:`ExtendedResNet` or other network whose stages are attributes
            ``res{i}``, each an ``nn.Sequential`` of ``CNNBlockBase``.

    Raises:
        ValueError: a stage is not there; or see :class:`RazorDynamicConv`.
        KeyError: ``add_efpn_config`` was not called.
    """
    wanted = require_node(cfg, "MODEL.SGDM").AFTER_STAGES
    stages = {k: v for k, v in bottom_up.named_children() if isinstance(v, nn.Sequential)}
    unknown = [name for name in wanted if name not in stages]
    if unknown:
        raise ValueError(
            f"MODEL.SGDM.AFTER_STAGES names {', '.join(unknown)}, but the stages of the bottom-up "
            f"network are {', '.join(stages) or 'not nn.Sequential'}: correct "
            "MODEL.SGDM.AFTER_STAGES."
        )
    for name in wanted:
        last: CNNBlockBase = stages[name][-1]
        stages[name].add_module("sgdm", build_sgdm(cfg, last.out_channels))


def build_sgdm_on_levels(cfg: CfgNode, levels: dict[str, ShapeSpec]) -> PyramidSGDM | None:
    """The blocks of ``MODEL.SGDM.ON_LEVELS``; None: there are none.

    Args:
        cfg: a config.
        levels: the pyramid's ``output_shape()``.

    Raises:
        ValueError: a level is not there; or see :class:`RazorDynamicConv`.
        KeyError: ``add_efpn_config`` was not called.
    """
    wanted = require_node(cfg, "MODEL.SGDM").ON_LEVELS
    check_features("MODEL.SGDM.ON_LEVELS", wanted, levels)
    if not wanted:
        return None
    return PyramidSGDM({name: build_sgdm(cfg, levels[name].channels) for name in wanted})


def _check_kernel(channels: int, kernel_size: int, razor_ratio: int) -> None:
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(
            f"MODEL.SGDM.KERNEL_SIZE is {kernel_size}, with which a map would not keep its size: "
            "use an odd number."
        )
    if razor_ratio < 1 or channels % razor_ratio:
        raise ValueError(
            f"MODEL.SGDM.RAZOR_RATIO is {razor_ratio}, which does not divide {channels} channels: "
            "use a divisor."
        )
