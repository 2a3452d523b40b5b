"""Registered builders of the extended pyramid."""

import functools
import logging
from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import nn

from efpn_d2.config import require_node
from efpn_d2.modeling.backbone.bottom_up import check_bottom_up
from efpn_d2.modeling.backbone.efpn import EFPN
from efpn_d2.modeling.backbone.enhanced_fpn import build_pyramid
from efpn_d2.modeling.backbone.extended_resnet import ExtendedResNet
from efpn_d2.modeling.backbone.extension import PyramidExtension
from efpn_d2.modeling.backbone.lazy_efpn import LazyEFPN
from efpn_d2.modeling.backbone.sgdm import add_sgdm_after_stages
from efpn_d2.modeling.backbone.upsampler import get_upsampler
from efpn_d2.modeling.checks import check_features, differs_in_width
from efpn_d2.modeling.config_checks import check_config, check_extended
from efpn_d2.modeling.lazy import build_lazy_computation
from efpn_d2.modeling.presets import get_texture
from efpn_d2.modeling.stock_names import EXTENDED

logger = logging.getLogger(__name__)


def build_efpn(
    cfg: CfgNode,
    bottom_up: Backbone,
    top_block: nn.Module | None,
    pyramid_class: Callable[..., EFPN] = EFPN,
) -> EFPN:
    """Build EFPN on ``bottom_up`` from ``MODEL.FPN`` and ``MODEL.EFPN``.

    Args:
        cfg: a config.
        bottom_up: an :class:`ExtendedBottomUp`; changed in place by :func:`add_sgdm_after_stages`.
        top_block: see Detectron2's ``FPN``.
        pyramid_class: :class:`EFPN`, which is replaced by :class:`LazyEFPN` if ``MODEL.EFPN.LAZY``
            is set, or a subclass with the same constructor.

    Raises:
        ValueError: see :class:`EFPN`, :func:`check_config`, :func:`add_sgdm_after_stages` and
            :func:`build_pyramid`.
        KeyError: if ``add_efpn_config`` was not called.
    """
    check_config(cfg)
    node = require_node(cfg, "MODEL.EFPN")
    add_sgdm_after_stages(cfg, bottom_up)
    texture = get_texture(node.TEXTURE, node.PRESET)
    check_bottom_up(bottom_up, () if texture == "none" else (texture,))
    shapes = bottom_up.output_shape()
    upsampler = get_upsampler(node.UPSAMPLER)
    extension = PyramidExtension(
        shapes["res2"].channels,
        cfg.MODEL.FPN.OUT_CHANNELS,
        texture_channels=0 if texture == "none" else shapes[texture].channels,
        p2_prime_channels=node.P2_PRIME_CHANNELS,
        preset=node.PRESET,
        upsampler=upsampler,
        upsampler_options=upsampler.from_config(cfg),
        norm=node.NORM,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
        own_level2="res2" not in cfg.MODEL.FPN.IN_FEATURES,
    )
    if node.COMPILE:
        # In place, so the names of the parameters do not change. Image sizes vary between batches.
        extension.compile(backend=node.COMPILE, dynamic=True)
    lazy = None
    if pyramid_class is EFPN:
        lazy = build_lazy_computation(cfg, bottom_up, extension)
    if lazy is not None:
        pyramid_class = functools.partial(LazyEFPN, lazy=lazy)
    return build_pyramid(
        cfg, pyramid_class, bottom_up, top_block, extension=extension, texture=texture
    )


def build_extended_resnet(cfg: CfgNode, input_shape: ShapeSpec) -> ExtendedResNet:
    """Build the configured ResNet or ResNeXt with the texture that ``MODEL.EFPN`` selects.

    Raises:
        ValueError: see :class:`ExtendedResNet` and :func:`~efpn_d2.modeling.presets.get_texture`.
        KeyError: if ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN")
    texture = get_texture(node.TEXTURE, node.PRESET)
    return ExtendedResNet.from_resnet(build_resnet_backbone(cfg, input_shape), texture)


@BACKBONE_REGISTRY.register()
def build_resnet_efpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> EFPN:
    """Build EFPN on a ResNet or ResNeXt for two-stage detectors: ``p2_prime, p2, ..., p6``.

    Raises:
        ValueError: if the configured network cannot be extended, or the RPN reads features that it
            does not return; see also :func:`check_config`.
        KeyError: if ``add_efpn_config`` was not called.
    """
    bottom_up = build_extended_resnet(cfg, input_shape)
    backbone = build_efpn(cfg, bottom_up, LastLevelMaxPool())
    _check_readers(cfg, backbone)
    return backbone


def _check_readers(cfg: CfgNode, backbone: EFPN) -> None:
    """Check that RPN and ROI heads match the pyramid; otherwise they fail later or ignore P'2."""
    if cfg.MODEL.META_ARCHITECTURE not in ("GeneralizedRCNN", "EFPNRCNN", "DistillationRCNN"):
        return
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME in ("RPN", "EFPNRPN"):
        check_features("MODEL.RPN.IN_FEATURES", cfg.MODEL.RPN.IN_FEATURES, backbone.output_shape())
    heads = cfg.MODEL.ROI_HEADS.NAME
    own_heads = EXTENDED["MODEL.ROI_HEADS.NAME"].get(heads)
    if own_heads and not cfg.MODEL.EFPN.RPN_ON_P2_PRIME:
        logger.warning(
            f"MODEL.ROI_HEADS.NAME is {heads}, which ignores P'2: set it to {own_heads} to use P'2."
        )


@BACKBONE_REGISTRY.register()
def build_retinanet_resnet_efpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> EFPN:
    """Build EFPN on a ResNet or ResNeXt for RetinaNet: ``p2_prime, p3, ..., p7``.

    ``MODEL.FPN.IN_FEATURES`` is RetinaNet's own (res3 to res5); the level 2 that FTT and P'2 read
    is computed inside ``extension``, so stock RetinaNet checkpoints fit. With res2 prepended,
    ``p2`` is built and returned, too.

    Raises:
        ValueError: see :func:`build_resnet_efpn_backbone`.
        KeyError: if ``add_efpn_config`` was not called.
    """
    bottom_up = build_extended_resnet(cfg, input_shape)
    c5_channels = bottom_up.output_shape()["res5"].channels
    backbone = build_efpn(cfg, bottom_up, LastLevelP6P7(c5_channels, cfg.MODEL.FPN.OUT_CHANNELS))
    shapes = backbone.output_shape()
    names = cfg.MODEL.RETINANET.IN_FEATURES
    check_features("MODEL.RETINANET.IN_FEATURES", names, shapes)
    if differs_in_width([shapes[name] for name in names]):
        # Detectron2's head supports a single number of channels.
        check_extended(cfg, "MODEL.EFPN.PRESET", [])
    return backbone
