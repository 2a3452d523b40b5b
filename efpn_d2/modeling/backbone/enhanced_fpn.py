"""Stock FPN, without P'2, with the modules that the config inserts into the backbone."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import Tensor, nn

from efpn_d2.layers import nearest_up2
from efpn_d2.modeling.backbone.enhancement import PyramidEnhancement, build_enhancement
from efpn_d2.modeling.backbone.sgdm import add_sgdm_after_stages
from efpn_d2.modeling.config_checks import check_config

Pyramid = TypeVar("Pyramid", bound="EnhancedFPN")
EnhancementBuilder = Callable[[dict[str, ShapeSpec]], PyramidEnhancement | None]


class EnhancedFPN(FPN):
    """Detectron2's FPN with an ``enhancement`` of its outputs.

    Without one, the outputs are bitwise equal to those of stock FPN.
    """

    def __init__(
        self, *args: Any, enhancement: EnhancementBuilder | None = None, **kwargs: Any
    ) -> None:
        """
        Args:
            args: see Detectron2's ``FPN``.
            enhancement: builds the enhancement from the pyramid's ``output_shape()``; None: no
                enhancement.
            kwargs: see Detectron2's ``FPN``.
        """
        super().__init__(*args, **kwargs)
        self._stock_features = list(self._out_features)
        self.enhancement = None if enhancement is None else enhancement(self.output_shape())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the features of images (N, 3, H, W), from high to low resolution."""
        return self.enhance(self.plain_outputs(x))

    def forward_with_masks(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Run :meth:`forward` and return FBSM's masks, too; see :meth:`enhance_with_masks`."""
        return self.enhance_with_masks(self.plain_outputs(x))

    def plain_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the outputs of :meth:`forward` before their enhancement."""
        bottom_up_features = self.bottom_up(x)
        return self.stock_outputs(bottom_up_features, self.top_down(bottom_up_features))

    def enhance(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Apply the enhancement to the outputs, each (N, C, H_l, W_l)."""
        return outputs if self.enhancement is None else self.enhancement(outputs)

    def enhance_with_masks(
        self, outputs: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Apply :meth:`enhance` and return FBSM's masks; empty without an enhancement.

        See :meth:`PyramidEnhancement.forward_with_masks`.
        """
        if self.enhancement is None:
            return outputs, {}
        return self.enhancement.forward_with_masks(outputs)

    def top_down(self, bottom_up_features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run FPN's top-down pathway up to, but not including, the output convolutions.

        ``FPN.forward`` does not return these features, and forward hooks that read them are not
        supported by scripts, so the pathway is implemented here again. A test verifies that it is
        bitwise equal to ``FPN.forward``.

        Returns:
            ``merged{i}`` of each level, from low to high resolution.
        """
        merged: dict[str, Tensor] = {}
        last = bottom_up_features[self.in_features[-1]]
        for i, lateral in enumerate(self.lateral_convs):
            stage = self.in_features[-i - 1]
            if i == 0:
                last = lateral(last)
            else:
                last = lateral(bottom_up_features[stage]) + nearest_up2(last)
                if self._fuse_type == "avg":
                    last = last / 2
            merged[stage.replace("res", "merged")] = last
        return merged

    def stock_outputs(
        self, bottom_up_features: dict[str, Tensor], merged: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the outputs of stock FPN from :meth:`top_down`, from high to low resolution."""
        results: list[Tensor] = []
        for i, output in enumerate(self.output_convs):
            stage = self.in_features[-i - 1]
            results.insert(0, output(merged[stage.replace("res", "merged")]))
        names = self._stock_features
        if self.top_block is not None:
            source = self.top_block.in_feature
            if source in bottom_up_features:
                results.extend(self.top_block(bottom_up_features[source]))
            else:
                results.extend(self.top_block(results[names.index(source)]))
        return {name: result for name, result in zip(names, results)}  # noqa: B905, C416  scripted


def build_enhanced_fpn(
    cfg: CfgNode, bottom_up: Backbone, top_block: nn.Module | None
) -> EnhancedFPN:
    """Build FPN on ``bottom_up`` from ``MODEL.FPN``, with all modules that the config inserts.

    Args:
        cfg: a config.
        bottom_up: see Detectron2's ``FPN``; changed in place by :func:`add_sgdm_after_stages`.
        top_block: see Detectron2's ``FPN``.

    Raises:
        ValueError: see :func:`check_config`, :func:`add_sgdm_after_stages` and
            :func:`build_enhancement`.
        KeyError: if ``add_efpn_config`` was not called.
    """
    check_config(cfg)
    add_sgdm_after_stages(cfg, bottom_up)
    return build_pyramid(cfg, EnhancedFPN, bottom_up, top_block)


def build_pyramid(
    cfg: CfgNode,
    pyramid_class: Callable[..., Pyramid],
    bottom_up: Backbone,
    top_block: nn.Module | None,
    **kwargs: Any,
) -> Pyramid:
    """Build a pyramid from ``MODEL.FPN`` with the enhancement that the config selects.

    Args:
        cfg: a config.
        pyramid_class: a subclass of :class:`EnhancedFPN`.
        bottom_up: see Detectron2's ``FPN``.
        top_block: see Detectron2's ``FPN``.
        kwargs: further arguments of the constructor of the class.

    Raises:
        ValueError: see the constructor and :func:`build_enhancement`.
    """
    node = cfg.MODEL.FPN
    return pyramid_class(
        bottom_up=bottom_up,
        in_features=node.IN_FEATURES,
        out_channels=node.OUT_CHANNELS,
        norm=node.NORM,
        top_block=top_block,
        fuse_type=node.FUSE_TYPE,
        enhancement=functools.partial(build_enhancement, cfg),
        **kwargs,
    )


@BACKBONE_REGISTRY.register()
def build_resnet_enhanced_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> EnhancedFPN:
    """Build the pyramid of two-stage detectors: ``p2, ..., p6``.

    Raises:
        ValueError: see :func:`build_enhanced_fpn`.
        KeyError: if ``add_efpn_config`` was not called.
    """
    return build_enhanced_fpn(cfg, build_resnet_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_resnet_enhanced_fpn_backbone(
    cfg: CfgNode, input_shape: ShapeSpec
) -> EnhancedFPN:
    """Build the pyramid of RetinaNet: ``p3, ..., p7``.

    Raises:
        ValueError: see :func:`build_enhanced_fpn`.
        KeyError: if ``add_efpn_config`` was not called.
    """
    bottom_up = build_resnet_backbone(cfg, input_shape)
    c5_channels = bottom_up.output_shape()["res5"].channels
    top_block = LastLevelP6P7(c5_channels, cfg.MODEL.FPN.OUT_CHANNELS)
    return build_enhanced_fpn(cfg, bottom_up, top_block)
