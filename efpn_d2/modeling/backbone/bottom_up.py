"""Interface of bottom-up networks for the extended pyramid."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import Tensor


@runtime_checkable
class ExtendedBottomUp(Protocol):
    """A Detectron2 ``Backbone`` whose outputs include ``res2`` and a texture.

    The texture has half the stride of ``res2``: ``c2_prime``, the output of stage 2 run at twice
    its resolution, or ``stem_map``, the input of stage 2. :class:`ExtendedResNet` is one.
    """

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the features of images.

        Args:
            x: images (N, 3, H, W).

        Returns:
            ``res2`` (N, C2, H/4, W/4), the later stages ``res3``, ..., and ``c2_prime`` or
            ``stem_map`` (N, C_t, H/2, W/2).
        """

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and strides of the features that :meth:`forward` returns."""


def check_bottom_up(bottom_up: Backbone, textures: Sequence[str]) -> str:
    """Check that a network is an :class:`ExtendedBottomUp`.

    Args:
        bottom_up: the network.
        textures: names of supported textures; the first one that the network returns is read.
            Empty: no texture is needed.

    Returns:
        The texture that is read, or ``none``.

    Raises:
        ValueError: if it is not a ``Backbone``, lacks an output, or an output has a wrong stride.
    """
    if not isinstance(bottom_up, Backbone) or not isinstance(bottom_up, ExtendedBottomUp):
        raise ValueError(
            f"EFPN: the bottom-up network is a {type(bottom_up).__name__}, which is not a "
            "Backbone: derive it from detectron2.modeling.Backbone."
        )
    shapes = bottom_up.output_shape()
    texture = next((name for name in textures if name in shapes), "none")
    if "res2" not in shapes or (textures and texture == "none"):
        raise ValueError(
            f"EFPN: the bottom-up network returns {', '.join(shapes)}, but the extension reads "
            f"{' or '.join([*textures]) or 'no texture'} and res2: return them (see "
            "ExtendedBottomUp), or use ExtendedResNet.from_resnet(your_resnet)."
        )
    if texture != "none" and 2 * shapes[texture].stride != shapes["res2"].stride:
        raise ValueError(
            f"EFPN: {texture} has stride {shapes[texture].stride}, but the extension needs half "
            f"the stride of res2, which is {shapes['res2'].stride}: correct them."
        )
    return texture
