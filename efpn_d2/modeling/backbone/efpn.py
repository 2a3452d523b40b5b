"""The extended feature pyramid network and its registered builders."""

import logging
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import Tensor, nn

from efpn_d2.config import require_node
from efpn_d2.layers import is_watched
from efpn_d2.modeling.checks import check_extended, check_features, differs_in_width
from efpn_d2.modeling.lazy import LazyComputation, PyramidMaps, build_lazy_computation
from efpn_d2.modeling.presets import TEXTURES, get_texture

from .enhanced_fpn import EnhancedFPN, build_pyramid
from .extended_resnet import ExtendedResNet
from .extension import PyramidExtension
from .sgdm import add_sgdm_after_stages

__all__ = [
    "EFPN",
    "build_efpn",
    "build_resnet_efpn_backbone",
    "build_retinanet_resnet_efpn_backbone",
]

logger = logging.getLogger(__name__)


class EFPN(EnhancedFPN):
    """FPN with the extended level P'2 (``p2_prime``, stride 2) below it [paper III-A].

    ``extension`` is the only child that stock FPN does not have. With equal weights, all other
    outputs are bitwise equal to those of stock FPN.

    Distillation compares the maps before their enhancement.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: list[str],
        out_channels: int,
        norm: str = "",
        top_block: nn.Module | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
        *,
        extension: PyramidExtension | None = None,
    ) -> None:
        """
        Args: those of Detectron2's ``FPN``, and
            bottom_up: must return ``c2_prime`` or ``stem_map`` too, as :class:`ExtendedResNet`
                does, unless the extension has no lateral convolution.
            in_features: must begin with ``res2`` or ``res3`` and contain ``res3``.
            extension: the modules behind P'3 and P'2, with ``own_level2`` if ``in_features``
                begins with ``res3``; None: those of the preset ``paper``.

        Raises:
            ValueError: ``bottom_up``, ``in_features`` or ``extension`` is not as said above.
        """
        shapes = bottom_up.output_shape()
        texture = next((name for name in TEXTURES if name in shapes), "none")
        has_texture = extension is None or extension.lateral is not None
        own_level2 = _check_inputs(shapes, in_features, texture if has_texture else None)
        super().__init__(
            bottom_up, in_features, out_channels, norm, top_block, fuse_type, square_pad
        )
        if extension is None:
            c2_channels = shapes["res2"].channels
            extension = PyramidExtension(
                c2_channels,
                out_channels,
                texture_channels=shapes[texture].channels,
                fuse_type=fuse_type,
                own_level2=own_level2,
            )
        if (extension.level2_lateral is not None) != own_level2:
            raise ValueError(
                f"EFPN: the pyramid begins with {in_features[0]}, so its extension must be built "
                f"with own_level2={own_level2}."
            )
        self.extension = extension
        # Set by the builder: how to compute P'2 only where it is read, at inference.
        self.lazy: LazyComputation | None = None
        self._own_level2 = own_level2
        self.texture = texture if extension.lateral is not None else "none"
        # Tiles are made of C'2, and of maps of the other levels' width.
        self.can_be_lazy = self.texture == "c2_prime" and extension.channels == out_channels
        own = {"p2_prime": extension.channels}
        if self.texture == "stem_map":
            own["stem_map"] = shapes["stem_map"].channels
        self._out_features = ["p2_prime", *self._out_features, *(own.keys() - {"p2_prime"})]
        self._out_feature_strides.update(dict.fromkeys(own, shapes["res2"].stride // 2))
        self._out_feature_channels.update(own)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: images (N, 3, H, W), H and W multiples of ``size_divisibility``.

        Returns:
            ``p2_prime`` (stride 2) and the maps of stock FPN, high to low resolution; and
            ``stem_map`` (stride 2), the texture, where that is the stem's.
        """
        if not torch.jit.is_scripting() and self._goes_lazily():
            return self._lazy_outputs(x)
        bottom_up_features = self.bottom_up(x)
        merged = self.top_down(bottom_up_features)
        _, p2_prime = self.extend(bottom_up_features, merged)
        return self.outputs(bottom_up_features, merged, p2_prime)

    @torch.jit.unused
    def _goes_lazily(self) -> bool:
        """A trace or an export would keep the tiles of its example."""
        if self.lazy is None or self.training or torch.jit.is_tracing() or _is_exporting():
            return False
        if not (self.can_be_lazy and isinstance(self.bottom_up, ExtendedResNet)):
            return False
        own = is_watched(self.bottom_up, within=False)
        if own or is_watched(self.bottom_up.stages[0]) or is_watched(self.extension):
            self.lazy.warn_once("a hook waits for calls that would not be made")
            return False
        return True

    @torch.jit.unused
    def _lazy_outputs(self, x: Tensor) -> dict[str, Any]:
        """As :meth:`forward`, with a :class:`LazyP2Prime` in the place of P'2."""
        stem_map = self.bottom_up.stem_map(x)
        bottom_up_features = self.bottom_up.stock_outputs(stem_map)
        merged = self.top_down(bottom_up_features)
        maps = PyramidMaps(
            stem_map,
            merged["merged2"],
            merged["merged3"],
            self.bottom_up.c2_prime_of_tiles(),
            self.extension,
        )
        stock = self.enhance(self.stock_outputs(bottom_up_features, merged))
        return {"p2_prime": self.lazy.start(maps, self.bottom_up.stages[0]), **stock}

    def teacher_maps(self, x: Tensor) -> dict[str, Tensor]:
        """The targets of distillation [paper Eq. 5]: levels 3 and 2 of ``x`` at twice the scale.

        Nothing of the extension is computed, nor any other level's output.

        Args:
            x: images (N, 3, 2H, 2W).

        Returns:
            ``p3_prime``: ``merged3`` of ``x`` (N, C, H/4, W/4), and ``p2_prime``: P2 of ``x``
            (N, C, H/2, W/2), named after the maps that are to resemble them. A pyramid without
            level 2 has no target for ``p2_prime``.
        """
        merged = self.top_down(self.bottom_up.stock_outputs(self.bottom_up.stem_map(x)))
        targets = {"p3_prime": merged["merged3"]}
        if not self._own_level2:
            targets["p2_prime"] = self.output_convs[-1](merged["merged2"])
        return targets

    def student_maps(self, x: Tensor) -> dict[str, Tensor]:
        """P'3 and P'2 of images (N, 3, H, W), by the same names as :meth:`teacher_maps`."""
        bottom_up_features = self.bottom_up(x)
        p3_prime, p2_prime = self.extend(bottom_up_features, self.top_down(bottom_up_features))
        return {"p3_prime": p3_prime, "p2_prime": p2_prime}

    def extend(
        self, bottom_up_features: dict[str, Tensor], merged: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """``p3_prime`` (stride 4) and ``p2_prime`` (stride 2) from texture and :meth:`top_down`."""
        texture = bottom_up_features.get(self.texture)
        level2 = bottom_up_features["res2"] if self._own_level2 else merged["merged2"]
        return self.extension(texture, level2, merged["merged3"])

    def outputs(
        self, bottom_up_features: dict[str, Tensor], merged: dict[str, Tensor], p2_prime: Tensor
    ) -> dict[str, Tensor]:
        """What :meth:`forward` returns, from its parts."""
        outputs = {"p2_prime": p2_prime}
        outputs.update(self.stock_outputs(bottom_up_features, merged))
        outputs = self.enhance(outputs)
        if self.texture == "stem_map":
            outputs["stem_map"] = bottom_up_features["stem_map"]
        return outputs


def _is_exporting() -> bool:
    """Of which older versions of torch do not tell."""
    return getattr(torch.compiler, "is_exporting", lambda: False)()


def _check_inputs(
    shapes: dict[str, ShapeSpec], in_features: list[str], texture: str | None
) -> bool:
    """Whether level 2 must be made by the extension, because the pyramid begins at level 3.

    Args:
        shapes: of the bottom-up network.
        in_features: of the pyramid.
        texture: the one that the network returns; None: the extension reads none.
    """
    if texture == "none" or "res2" not in shapes:
        _refuse_bottom_up(shapes, " or ".join(TEXTURES))
    if list(in_features[:2]) != ["res2", "res3"] and list(in_features[:1]) != ["res3"]:
        raise ValueError(
            f"EFPN: MODEL.FPN.IN_FEATURES is {list(in_features)}, but the extension reads levels 2 "
            "and 3: begin it with res2, res3 or with res3."
        )
    return in_features[0] == "res3"


def _refuse_bottom_up(shapes: dict[str, ShapeSpec], texture: str) -> None:
    raise ValueError(
        f"EFPN: the bottom-up network returns {', '.join(shapes)}, but the extension reads "
        f"{texture}, and res2, too: use ExtendedResNet, or "
        "ExtendedResNet.from_resnet(your_resnet)."
    )


def build_efpn(
    cfg: CfgNode,
    bottom_up: Backbone,
    top_block: nn.Module | None,
    pyramid_class: type[EFPN] = EFPN,
) -> EFPN:
    """EFPN on ``bottom_up``, all else as ``MODEL.FPN`` and ``MODEL.EFPN`` say.

    Args:
        cfg: a config.
        bottom_up: see :class:`EFPN`; changed in place by :func:`add_sgdm_after_stages`.
        top_block: see Detectron2's ``FPN``.
        pyramid_class: a subclass with the same constructor.

    Raises: as :class:`EFPN`, :func:`add_sgdm_after_stages` and :func:`build_pyramid`, and
        KeyError if ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN")
    add_sgdm_after_stages(cfg, bottom_up)
    shapes = bottom_up.output_shape()
    texture = get_texture(node.TEXTURE, node.PRESET)
    if not shapes.keys() >= {"res2", *({texture} - {"none"})}:
        _refuse_bottom_up(shapes, texture)
    extension = PyramidExtension(
        shapes["res2"].channels,
        cfg.MODEL.FPN.OUT_CHANNELS,
        texture_channels=0 if texture == "none" else shapes[texture].channels,
        p2_prime_channels=node.P2_PRIME_CHANNELS,
        preset=node.PRESET,
        upsampler=node.UPSAMPLER,
        width=node.WIDTH,
        content_blocks=node.CONTENT_BLOCKS,
        texture_blocks=node.TEXTURE_BLOCKS,
        norm=node.NORM,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
        own_level2="res2" not in cfg.MODEL.FPN.IN_FEATURES,
    )
    if node.COMPILE:
        # In place: the names of the parameters stay. Sizes of images change from batch to batch.
        extension.compile(backend=node.COMPILE, dynamic=True)
    pyramid = build_pyramid(cfg, pyramid_class, bottom_up, top_block, extension=extension)
    enhanced = () if pyramid.enhancement is None else pyramid.enhancement.changed_levels()
    pyramid.lazy = build_lazy_computation(
        cfg, extension.level2_lateral is not None, enhanced, pyramid.can_be_lazy
    )
    return pyramid


def build_extended_resnet(cfg: CfgNode, input_shape: ShapeSpec) -> ExtendedResNet:
    """The configured ResNet or ResNeXt, with the texture that ``MODEL.EFPN`` asks for.

    Raises: as :class:`ExtendedResNet` and :func:`~efpn_d2.modeling.presets.get_texture`, and
        KeyError if ``add_efpn_config`` was not called.
    """
    node = require_node(cfg, "MODEL.EFPN")
    texture = get_texture(node.TEXTURE, node.PRESET)
    return ExtendedResNet.from_resnet(build_resnet_backbone(cfg, input_shape), texture)


@BACKBONE_REGISTRY.register()
def build_resnet_efpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> EFPN:
    """EFPN on a ResNet or ResNeXt, for two-stage detectors: ``p2_prime, p2, ..., p6``.

    Raises:
        ValueError: the configured network cannot be extended, or the RPN reads a map that it does
            not return.
        KeyError: ``add_efpn_config`` was not called.
    """
    bottom_up = build_extended_resnet(cfg, input_shape)
    backbone = build_efpn(cfg, bottom_up, LastLevelMaxPool())
    _check_readers(cfg, backbone)
    return backbone


def _check_readers(cfg: CfgNode, backbone: EFPN) -> None:
    """What a two-stage detector would otherwise fail on later, or never."""
    if cfg.MODEL.META_ARCHITECTURE not in ("GeneralizedRCNN", "DistillationRCNN"):
        return
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME in ("RPN", "EFPNRPN"):
        check_features("MODEL.RPN.IN_FEATURES", cfg.MODEL.RPN.IN_FEATURES, backbone.output_shape())
    heads = cfg.MODEL.ROI_HEADS.NAME
    if heads in ("StandardROIHeads", "CascadeROIHeads") and not cfg.MODEL.EFPN.RPN_ON_P2_PRIME:
        logger.warning(
            f"MODEL.ROI_HEADS.NAME is {heads}, which does not read P'2: to use it, set "
            f"{heads.replace('Standard', 'EFPN').replace('Cascade', 'EFPNCascade')}."
        )


@BACKBONE_REGISTRY.register()
def build_retinanet_resnet_efpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> EFPN:
    """EFPN on a ResNet or ResNeXt, for RetinaNet: ``p2_prime, p3, ..., p7``.

    ``MODEL.FPN.IN_FEATURES`` stays RetinaNet's own (res3 to res5); the level 2 that FTT and P'2
    read is made inside ``extension``, so that a stock RetinaNet checkpoint fits too. With res2 in
    front of it, ``p2`` is built and returned as well.

    Raises: as :func:`build_resnet_efpn_backbone`.
    """
    bottom_up = build_extended_resnet(cfg, input_shape)
    c5_channels = bottom_up.output_shape()["res5"].channels
    backbone = build_efpn(cfg, bottom_up, LastLevelP6P7(c5_channels, cfg.MODEL.FPN.OUT_CHANNELS))
    shapes = backbone.output_shape()
    names = cfg.MODEL.RETINANET.IN_FEATURES
    check_features("MODEL.RETINANET.IN_FEATURES", names, shapes)
    if differs_in_width([shapes[name] for name in names]):
        # Detectron2's head takes one number of channels.
        check_extended(cfg, "MODEL.EFPN.PRESET", [])
    return backbone
