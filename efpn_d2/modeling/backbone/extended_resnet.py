"""ResNet that also returns a map of stride 2, for P'2 (paper Table I)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BasicStem
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from efpn_d2.modeling.presets import TEXTURES


class ExtendedResNet(ResNet):
    """Detectron2's ResNet (or ResNeXt) with the additional output C'2 [paper III-A, Table I].

    C'2 is ``res2`` applied to the stem's map *before* max-pooling: same weights as C2, twice its
    resolution (stride 2). There is no new parameter and no renamed one, so every checkpoint of the
    stock network fits.

    Instead of C'2 it can return the stem's map itself, ``stem_map``, which costs nothing. [ours]
    """

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: list[list[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: list[str] | None = None,
        freeze_at: int = 0,
        *,
        texture: str = "c2_prime",
    ) -> None:
        """
        Args: those of Detectron2's ``ResNet``, and
            texture: the map of stride 2 that is returned besides ``out_features``: ``c2_prime``,
                ``stem_map`` or ``none``.

        Raises:
            ValueError: unknown texture, the stem is not a stride-2 convolution followed by a
                stride-2 max-pool, stage 2 has a stride, or there is a classification layer.
        """
        if num_classes is not None:
            raise ValueError(
                "ExtendedResNet: a classification layer is asked for, which no detector reads: "
                "build the ResNet with num_classes=None."
            )
        if texture not in (*TEXTURES, "none"):
            raise ValueError(
                f"ExtendedResNet: the texture is '{texture}': use {', '.join(TEXTURES)} or none."
            )
        _check_stem(stem)
        super().__init__(stem, stages, num_classes, out_features, freeze_at)
        self.texture = texture
        self._texture_channels = {"c2_prime": stages[0][-1].out_channels}
        self._texture_channels["stem_map"] = stem.out_channels
        if self._out_feature_strides["res2"] != stem.stride:
            raise ValueError(
                "ExtendedResNet: res2 has stride "
                f"{self._out_feature_strides['res2'] // stem.stride}, but C'2 needs a stage 2 that "
                "keeps its input's resolution: build the ResNet with stride 1 in res2."
            )

    @classmethod
    def from_resnet(cls, resnet: ResNet, texture: str = "c2_prime") -> "ExtendedResNet":
        """Rebuild a stock ResNet as an extended one, out of the same modules and parameters.

        ``res2`` is added to the outputs: the extension of a pyramid that starts at C3 reads it.

        Raises:
            ValueError: see the constructor.
        """
        names = resnet._out_features
        out_features = names if "res2" in names else ["res2", *names]
        # freeze_at stays 0: what the given network froze is frozen already.
        stages = [list(stage) for stage in resnet.stages]
        return cls(resnet.stem, stages, resnet.num_classes, out_features, texture=texture)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: images (N, 3, H, W).

        Returns:
            The stock outputs, and ``c2_prime`` (N, C_res2, H/2, W/2) or ``stem_map`` (N, C_stem,
            H/2, W/2).
        """
        stem_map = self.stem_map(x)
        outputs = self.stock_outputs(stem_map)
        if self.texture == "c2_prime":
            # After C2, whose pass updates the running statistics that this one reads.
            outputs["c2_prime"] = self.c2_prime(stem_map)
        elif self.texture == "stem_map":
            outputs["stem_map"] = stem_map
        return outputs

    def stock_outputs(self, stem_map: Tensor) -> dict[str, Tensor]:
        """The outputs of the stock ResNet from :meth:`stem_map`."""
        outputs: dict[str, Tensor] = {}
        x = F.max_pool2d(stem_map, kernel_size=3, stride=2, padding=1)
        if "stem" in self._out_features:
            outputs["stem"] = x
        for name, stage in zip(self.stage_names, self.stages):  # noqa: B905  scripted
            x = stage(x)
            if name in self._out_features:
                outputs[name] = x
        return outputs

    def stem_map(self, x: Tensor) -> Tensor:
        """The stem without its max-pooling: (N, 3, H, W) -> (N, C_stem, H/2, W/2)."""
        return F.relu_(self.stem.conv1(x))

    def c2_prime(self, stem_map: Tensor) -> Tensor:
        """C'2 from :meth:`stem_map`: (N, C_stem, H/2, W/2) -> (N, C_res2, H/2, W/2).

        Batch normalisation uses its running statistics here, in training too, and does not update
        them: they stay those of C2, and C'2 sees in training what it sees in inference. [ours]
        """
        # By its index: Detectron2 removes the attribute ``res2`` from a network to be scripted.
        if torch.jit.is_scripting():
            return self.stages[0](stem_map)
        with _running_statistics(self.stages[0]):
            return self.stages[0](stem_map)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides of the maps that :meth:`forward` returns."""
        shapes = super().output_shape()
        if self.texture in self._texture_channels:
            shapes[self.texture] = ShapeSpec(self._texture_channels[self.texture], stride=2)
        return shapes


@contextmanager
def _running_statistics(stage: nn.Module) -> Iterator[None]:
    norms = [m for m in stage.modules() if isinstance(m, _BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def _check_stem(stem: nn.Module) -> None:
    if not isinstance(stem, BasicStem) or stem.conv1.stride != (2, 2):
        raise ValueError(
            f"ExtendedResNet: the stem {type(stem).__name__} is not a stride-2 convolution "
            "followed by a stride-2 max-pool, so there is no stride-2 map to compute C'2 from: use "
            "a ResNet with Detectron2's BasicStem."
        )
