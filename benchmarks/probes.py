"""Pyramids of the ablation that are only evaluated: parts of a trained EFPN, or its teacher.

Each is an :class:`EFPN` with the same weights, of which other maps are handed to the heads.
"""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from detectron2.structures import ImageList
from torch import Tensor

from efpn_d2.modeling import EFPN, ExtendedResNet, build_efpn
from efpn_d2.modeling.meta_arch.views import make_views


class P3PrimePyramid(EFPN):
    """P'3 alone, detected on as level 3 is: after level 3's output convolution, as ``p3``.

    To the heads the map looks like P3 of the image at twice the side, so anchors must be half as
    large as those of P3.
    """

    def output_shape(self) -> dict[str, ShapeSpec]:
        """``p3`` at stride 4."""
        return {"p3": ShapeSpec(channels=self._out_feature_channels["p3"], stride=4)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``p3`` (N, C, H/4, W/4) of images (N, 3, H, W)."""
        level3 = self.output_convs[self.in_features[::-1].index("res3")]
        return {"p3": level3(self.student_maps(x)["p3_prime"])}


class TeacherP2Pyramid(EFPN):
    """FPN whose P'2 is the target itself, P2 of the 2x image: the bound of what distillation gives.

    With ``view`` "upsample" the images are the student's and the strides those of EFPN; with
    "downsample" they are the teacher's, and all strides are twice as large in their pixels.
    """

    view = "upsample"

    @property
    def size_divisibility(self) -> int:
        """Of the given images, so that the student's fit too."""
        return super().size_divisibility * (2 if self.view == "downsample" else 1)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """As of :class:`EFPN`, in pixels of the given images."""
        factor = 2 if self.view == "downsample" else 1
        return {
            name: ShapeSpec(channels=shape.channels, stride=shape.stride * factor)
            for name, shape in super().output_shape().items()
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``p2_prime`` from the 2x view, ``p2`` to ``p6`` from the 1x view of ``x``."""
        images = ImageList(x, [tuple(x.shape[-2:])] * len(x))
        student, teacher = make_views(images, self.view, super().size_divisibility)
        bottom_up = self.bottom_up.stock_outputs(self.bottom_up.stem_map(student.tensor))
        outputs = {"p2_prime": self.teacher_maps(teacher)["p2_prime"]}
        outputs.update(self.stock_outputs(bottom_up, self.top_down(bottom_up)))
        return outputs


@BACKBONE_REGISTRY.register()
def build_p3_prime_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> P3PrimePyramid:
    """:class:`P3PrimePyramid` of the configured EFPN."""
    return _build(cfg, input_shape, P3PrimePyramid)


@BACKBONE_REGISTRY.register()
def build_teacher_p2_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TeacherP2Pyramid:
    """:class:`TeacherP2Pyramid` of the configured EFPN and ``DISTILL.VIEW``."""
    backbone = _build(cfg, input_shape, TeacherP2Pyramid)
    backbone.view = cfg.DISTILL.VIEW
    return backbone


def _build(cfg: CfgNode, input_shape: ShapeSpec, pyramid_class: type[EFPN]) -> EFPN:
    bottom_up = ExtendedResNet.from_resnet(build_resnet_backbone(cfg, input_shape))
    return build_efpn(cfg, bottom_up, LastLevelMaxPool(), pyramid_class)
