"""Detector that learns P'3 and P'2 from what it sees at twice the scale (paper III-C)."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, GeneralizedRCNN
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from efpn_d2.losses import foreground_background_balanced_loss
from efpn_d2.modeling.freezing import eval_frozen_modules
from efpn_d2.modeling.meta_arch.views import VIEWS, halve_instances, make_views


@META_ARCH_REGISTRY.register()
class DistillationRCNN(GeneralizedRCNN):
    """``GeneralizedRCNN`` with cross-resolution distillation in training [paper III-C, Eq. 5].

    Teacher and student are one network, without a second copy in memory: the teacher's maps come
    from the image at twice the side, under ``no_grad`` and in evaluation mode. The state dict is
    that of ``GeneralizedRCNN``, and so is inference. Modules without trainable parameters stay in
    evaluation mode in training.

    Next to the detector's losses, which train everything, Eq. 5 trains the extension alone, for
    which that runs twice; by another teacher, whose targets are fixed, it trains all before it too.
    """

    @configurable
    def __init__(
        self,
        *,
        detect: bool,
        distill: bool,
        levels: Sequence[str] = ("p3_prime", "p2_prime"),
        positive_weight: float = 1.0,
        loss_weight: float = 1.0,
        view: str = "downsample",
        **kwargs: Any,
    ) -> None:
        """
        Args:
            detect: train by the detector's losses. Without it RPN and heads do not run in training.
            distill: train by Eq. 5.
            levels: which of ``p3_prime`` and ``p2_prime`` are compared with the teacher.
            positive_weight: lambda of Eq. 8.
            loss_weight: weight of Eq. 5.
            view: ``downsample``: the given images are the teacher's, at twice the student's side;
                ``upsample``: they are the student's.
            kwargs: those of ``GeneralizedRCNN``.

        Raises:
            ValueError: unknown view or level.
        """
        super().__init__(**kwargs)
        if view not in VIEWS:
            raise ValueError(f"DISTILL.VIEW is '{view}': use one of {', '.join(VIEWS)}.")
        unknown = set(levels) - {"p3_prime", "p2_prime"}
        if distill and (unknown or not levels):
            raise ValueError(
                f"DISTILL.LEVELS is {list(levels)}: name p3_prime, p2_prime or both, nothing else."
            )
        self.detect = detect
        self.distill = distill
        self.levels = tuple(levels)
        self.positive_weight = positive_weight
        self.loss_weight = loss_weight
        self.view = view
        # In a tuple, so that the teacher's parameters are none of this module's.
        self._other_teacher: tuple[Backbone, ...] = ()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of the constructor, from ``cfg.MODEL`` and ``cfg.DISTILL``."""
        ret = super().from_config(cfg)
        node = cfg.DISTILL
        ret.update(
            detect=node.STAGE != "distill",
            distill=node.STAGE in ("distill", "joint"),
            levels=node.LEVELS,
            positive_weight=node.POSITIVE_WEIGHT,
            loss_weight=node.LOSS_WEIGHT,
            view=node.VIEW,
        )
        return ret

    def set_teacher(self, backbone: Backbone) -> None:
        """Take the targets from another, frozen network; it is not part of the state dict."""
        self._other_teacher = (backbone.to(self.device).requires_grad_(False).eval(),)

    def train(self, mode: bool = True) -> "DistillationRCNN":
        """As for any module, but what is frozen stays in evaluation mode."""
        super().train(mode)
        eval_frozen_modules(self)
        return self

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """
        Args:
            batched_inputs: as for ``GeneralizedRCNN``. In training with distillation and the view
                ``downsample``, image and instances are at twice the student's scale.

        Returns:
            In training the losses, with ``loss_distill_p3_global``, ``loss_distill_p3_positive``
            and the same of ``p2``; else ``GeneralizedRCNN``'s output.
        """
        if not self.training or not self.distill:
            return super().forward(batched_inputs)
        instances = [x["instances"].to(self.device) for x in batched_inputs]
        images = self.preprocess_image(batched_inputs)
        images, teacher_images = make_views(images, self.view, self.backbone.size_divisibility)
        if self.view == "downsample":
            instances = [halve_instances(x) for x in instances]
        if not self.detect:
            maps = self.backbone.student_maps(images.tensor)
            return self._distillation_losses(maps, teacher_images, instances)
        return self._joint_losses(images, teacher_images, instances)

    def _joint_losses(
        self, images: ImageList, teacher_images: Tensor, instances: list[Instances]
    ) -> dict[str, Tensor]:
        bottom_up = self.backbone.bottom_up(images.tensor)
        merged = self.backbone.top_down(bottom_up)
        p3_prime, p2_prime = self.backbone.extend(bottom_up, merged)
        features = self.backbone.outputs(bottom_up, merged, p2_prime)
        proposals, losses = self.proposal_generator(images, features, instances)
        _, detector_losses = self.roi_heads(images, features, proposals, instances)
        if not self._other_teacher:
            p3_prime, p2_prime = self._extend_alone(bottom_up, merged)
        maps = {"p3_prime": p3_prime, "p2_prime": p2_prime}
        distillation_losses = self._distillation_losses(maps, teacher_images, instances)
        return {**losses, **detector_losses, **distillation_losses}

    def _extend_alone(
        self, bottom_up: dict[str, Tensor], merged: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """P'3 and P'2 once more, without a gradient path to the network before the extension.

        That network makes the targets, too. It could bring both closer by saying less, at the cost
        of all levels; so Eq. 5 teaches the extension alone, as in the stage ``distill``. [ours]
        """
        inputs = ({k: v.detach() for k, v in maps.items()} for maps in (bottom_up, merged))
        with _without_momentum(self.backbone.extension):
            return self.backbone.extend(*inputs)

    def _distillation_losses(
        self, maps: dict[str, Tensor], teacher_images: Tensor, instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Eq. 5, term by term."""
        boxes: list[Boxes] = [x.gt_boxes for x in instances]
        targets = self._teach(teacher_images)
        losses = {}
        for level in self.levels:
            terms = foreground_background_balanced_loss(
                maps[level],
                targets[level],
                boxes,
                teacher_images.shape[-1] // (2 * maps[level].shape[-1]),
                self.positive_weight,
            )
            for term, value in terms.items():
                name = f"loss_distill_{level.removesuffix('_prime')}_{term}"
                losses[name] = self.loss_weight * value
        return losses

    @torch.no_grad()
    def _teach(self, images: Tensor) -> dict[str, Tensor]:
        backbone = self._other_teacher[0] if self._other_teacher else self.backbone
        training = [m for m in backbone.modules() if m.training]
        backbone.eval()
        try:
            return backbone.teacher_maps(images)
        finally:
            for module in training:
                module.training = True


@contextlib.contextmanager
def _without_momentum(module: nn.Module) -> Iterator[None]:
    """Let batch normalisations keep their running statistics as they are."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    momenta = [m.momentum for m in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
