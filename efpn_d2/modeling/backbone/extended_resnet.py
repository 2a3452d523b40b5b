"""ResNet that also returns features of stride 2, for P'2 [paper Table I]."""

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

    C'2 is ``res2`` applied to the stem's features *before* max-pooling: the same weights as C2 at
    twice its resolution (stride 2). No parameter is added or renamed, so every checkpoint of the
    stock network can be loaded.

    Instead of C'2 it can return the stem's features themselves, ``stem_map``, at no cost. [ours]
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
        Args:
            stem: see Detectron2's ``ResNet``.
            stages: see Detectron2's ``ResNet``.
            num_classes: must be None, since no detector uses a classification layer.
            out_features: see Detectron2's ``ResNet``.
            freeze_at: see Detectron2's ``ResNet``.
            texture: the features of stride 2 returned besides ``out_features``: ``c2_prime``,
                ``stem_map`` or ``none``.

        Raises:
            ValueError: if the texture is unknown, the stem is not a stride-2 convolution followed
                by a stride-2 max-pool, stage 2 has a stride, or there is a classification layer.
        """
        if num_classes is not None:
            raise ValueError(
                "ExtendedResNet: a classification layer is requested, which no detector uses: "
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
                f"{self._out_feature_strides['res2'] // stem.stride}, but C'2 needs a stage 2 "
                "that preserves resolution: build the ResNet with stride 1 in res2."
            )

    @classmethod
    def from_resnet(cls, resnet: ResNet, texture: str = "c2_prime") -> "ExtendedResNet":
        """Build an extended ResNet from the modules and parameters of a stock one.

        ``res2`` is added to the outputs, since the extension of a pyramid that starts at C3 needs
        it.

        Raises:
            ValueError: see the constructor.
        """
        names = resnet._out_features
        out_features = names if "res2" in names else ["res2", *names]
        # freeze_at stays 0, because the given network has already frozen its stages.
        stages = [list(stage) for stage in resnet.stages]
        return cls(resnet.stem, stages, resnet.num_classes, out_features, texture=texture)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the features of all stages.

        Args:
            x: images (N, 3, H, W).

        Returns:
            The stock outputs, and ``c2_prime`` (N, C_res2, H/2, W/2) or ``stem_map`` (N, C_stem,
            H/2, W/2).
        """
        stem_map = self.stem_map(x)
        outputs = self.stock_outputs(stem_map)
        if self.texture == "c2_prime":
            # This follows C2, whose forward pass updates the running statistics that this one uses.
            outputs["c2_prime"] = self.c2_prime(stem_map)
        elif self.texture == "stem_map":
            outputs["stem_map"] = stem_map
        return outputs

    def stock_outputs(self, stem_map: Tensor) -> dict[str, Tensor]:
        """Compute the outputs of the stock ResNet from :meth:`stem_map`."""
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
        """Apply the stem without max-pooling: (N, 3, H, W) to (N, C_stem, H/2, W/2)."""
        return F.relu_(self.stem.conv1(x))

    def c2_prime(self, stem_map: Tensor) -> Tensor:
        """Compute C'2 from :meth:`stem_map`: (N, C_stem, H/2, W/2) to (N, C_res2, H/2, W/2).

        Batch normalization uses its running statistics here, also in training, and does not update
        them: they remain those of C2, and C'2 is the same in training and inference. [ours]
        """
        # Access by index, because Detectron2 removes the attribute ``res2`` before scripting.
        if torch.jit.is_scripting():
            return self.stages[0](stem_map)
        with _running_statistics(self.stages[0]):
            return self.stages[0](stem_map)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and strides of the outputs of :meth:`forward`."""
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
            "followed by a stride-2 max-pool, so there are no stride-2 features to compute C'2 "
            "from: use a ResNet with Detectron2's BasicStem."
        )
