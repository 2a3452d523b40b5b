"""Extended feature pyramid network."""

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import Tensor, nn

from efpn_d2.modeling.backbone.bottom_up import check_bottom_up
from efpn_d2.modeling.backbone.enhanced_fpn import EnhancedFPN, EnhancementBuilder
from efpn_d2.modeling.backbone.extended_resnet import ExtendedResNet
from efpn_d2.modeling.backbone.extension import PyramidExtension
from efpn_d2.modeling.presets import TEXTURES


class EFPN(EnhancedFPN):
    """FPN with the extended level P'2 (``p2_prime``, stride 2) below it [paper III-A].

    ``extension`` is the only child that stock FPN does not have. With equal weights, all other
    outputs are bitwise equal to those of stock FPN. Distillation compares the features before their
    enhancement.
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
        texture: str = "auto",
        enhancement: EnhancementBuilder | None = None,
    ) -> None:
        """
        Args:
            bottom_up: an :class:`ExtendedBottomUp`; without a texture if the extension has no
                lateral convolution.
            in_features: must begin with ``res2``, ``res3`` or with ``res3``.
            out_channels: see Detectron2's ``FPN``.
            norm: see Detectron2's ``FPN``.
            top_block: see Detectron2's ``FPN``.
            fuse_type: see Detectron2's ``FPN``.
            square_pad: see Detectron2's ``FPN``.
            extension: the modules that compute P'3 and P'2, with ``own_level2`` if ``in_features``
                begins with ``res3``; None: those of the preset ``paper``.
            texture: ``c2_prime`` or ``stem_map``, the input of the extension; ``auto``: the first
                one that ``bottom_up`` returns. Ignored without a lateral convolution.
            enhancement: see :class:`EnhancedFPN`.

        Raises:
            ValueError: if ``bottom_up``, ``in_features`` or ``extension`` is not as described.
        """
        textures = TEXTURES if texture == "auto" else (texture,)
        has_texture = extension is None or extension.lateral is not None
        read = check_bottom_up(bottom_up, textures if has_texture else ())
        shapes = bottom_up.output_shape()
        own_level2 = _begins_at_level3(in_features)
        super().__init__(
            bottom_up, in_features, out_channels, norm, top_block, fuse_type, square_pad
        )
        if extension is None:
            extension = PyramidExtension(
                shapes["res2"].channels,
                out_channels,
                texture_channels=shapes[read].channels,
                fuse_type=fuse_type,
                own_level2=own_level2,
            )
        if (extension.level2_lateral is not None) != own_level2:
            raise ValueError(
                f"EFPN: the pyramid begins with {in_features[0]}, so its extension must be built "
                f"with own_level2={own_level2}."
            )
        self.extension = extension
        self._own_level2 = own_level2
        self.texture = read
        self._declare_outputs(shapes)
        if enhancement is not None:
            self.enhancement = enhancement(self.output_shape())

    def _declare_outputs(self, shapes: dict[str, ShapeSpec]) -> None:
        """Add the outputs that stock FPN does not have; ``shapes`` are the bottom-up network's."""
        self._out_features = ["p2_prime", *self._stock_features]
        self._out_feature_channels["p2_prime"] = self.extension.channels
        self._out_feature_strides["p2_prime"] = shapes["res2"].stride // 2
        if self.texture == "stem_map":
            self._out_features.append("stem_map")
            self._out_feature_channels["stem_map"] = shapes["stem_map"].channels
            self._out_feature_strides["stem_map"] = shapes["stem_map"].stride

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the pyramid of images.

        Args:
            x: images (N, 3, H, W), H and W multiples of ``size_divisibility``.

        Returns:
            ``p2_prime`` (stride 2) and the features of stock FPN, from high to low resolution; and
            ``stem_map`` (stride 2) if it is the texture.
        """
        return self.enhance(self.plain_outputs(x))

    def plain_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the outputs of :meth:`forward` before their enhancement."""
        bottom_up_features = self.bottom_up(x)
        merged = self.top_down(bottom_up_features)
        extended = self.extend(bottom_up_features, merged)
        return self.outputs(bottom_up_features, merged, extended["p2_prime"])

    def teacher_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the targets of distillation [paper Eq. 5]: levels 3 and 2 at twice the scale.

        The extension and the outputs of other levels are not computed.

        Args:
            x: images (N, 3, 2H, 2W).

        Returns:
            ``p3_prime``: ``merged3`` of ``x`` (N, C, H/4, W/4), and ``p2_prime``: P2 of ``x`` (N,
            C, H/2, W/2), named after the features that are distilled from them. A pyramid without
            level 2 has no target for ``p2_prime``.
        """
        merged = self.top_down(self._features_without_texture(x))
        targets = {"p3_prime": merged["merged3"]}
        if not self._own_level2:
            targets["p2_prime"] = self.output_convs[-1](merged["merged2"])
        return targets

    def _features_without_texture(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the bottom-up features of images, without C'2 if possible."""
        if isinstance(self.bottom_up, ExtendedResNet):
            return self.bottom_up.stock_outputs(self.bottom_up.stem_map(x))
        return self.bottom_up(x)

    def student_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Compute P'3 and P'2 of images (N, 3, H, W), named as in :meth:`teacher_maps`."""
        bottom_up_features = self.bottom_up(x)
        return self.extend(bottom_up_features, self.top_down(bottom_up_features))

    def extend(
        self, bottom_up_features: dict[str, Tensor], merged: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute ``p3_prime`` (stride 4) and ``p2_prime`` (stride 2).

        Args:
            bottom_up_features: outputs of the bottom-up network.
            merged: result of :meth:`top_down`.
        """
        texture = bottom_up_features.get(self.texture)
        level2 = bottom_up_features["res2"] if self._own_level2 else merged["merged2"]
        p3_prime, p2_prime = self.extension(texture, level2, merged["merged3"])
        return {"p3_prime": p3_prime, "p2_prime": p2_prime}

    def outputs(
        self, bottom_up_features: dict[str, Tensor], merged: dict[str, Tensor], p2_prime: Tensor
    ) -> dict[str, Tensor]:
        """Assemble the outputs of :meth:`plain_outputs`."""
        outputs = {"p2_prime": p2_prime}
        outputs.update(self.stock_outputs(bottom_up_features, merged))
        if self.texture == "stem_map":
            outputs["stem_map"] = bottom_up_features["stem_map"]
        return outputs


def _begins_at_level3(in_features: list[str]) -> bool:
    """Check whether the pyramid begins at level 3, so that the extension must compute level 2."""
    if list(in_features[:2]) != ["res2", "res3"] and list(in_features[:1]) != ["res3"]:
        raise ValueError(
            f"EFPN: MODEL.FPN.IN_FEATURES is {list(in_features)}, but the extension reads levels 2 "
            "and 3: begin it with res2, res3 or with res3."
        )
    return in_features[0] == "res3"
