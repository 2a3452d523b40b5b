"""Detector whose P'3 and P'2 are distilled from features at twice the scale [paper III-C]."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from efpn_d2.losses import foreground_background_balanced_loss
from efpn_d2.modeling.freezing import eval_frozen_modules, freeze_all_but
from efpn_d2.modeling.mask_supervision import learns_masks
from efpn_d2.modeling.meta_arch.rcnn import EFPNRCNN, Losses
from efpn_d2.modeling.meta_arch.teacher import build_teacher
from efpn_d2.modeling.meta_arch.views import VIEWS, make_views
from efpn_d2.modeling.stage_table import StageError, get_stage


@META_ARCH_REGISTRY.register()
class DistillationRCNN(EFPNRCNN):
    """:class:`EFPNRCNN` with cross-resolution distillation in training [paper III-C, Eq. 5].

    Teacher and student are the same network, without a second copy in memory: the teacher's
    features are computed from the image at twice the side, under ``no_grad`` and in evaluation
    mode. State dict and inference are those of ``GeneralizedRCNN``. Modules without trainable
    parameters stay in evaluation mode during training.

    If Eq. 5 is used with ``DISTILL.VIEW`` ``downsample``, the elements of a batch also need
    ``teacher_image`` (C, 2H, 2W), which is averaged to the student's input; ``image`` and
    ``instances`` are the student's, as in all stages.

    In addition to the detector's losses, which train everything, Eq. 5 trains the extension only,
    for which that runs twice. With a separate teacher, whose targets are fixed, Eq. 5 also trains
    everything before the extension.
    """

    __jit_unused_properties__ = ("teacher",)

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
        teacher: Backbone | None = None,
        trained: tuple[str, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            detect: whether to use the detector's losses. Otherwise RPN and heads do not run in
                training.
            distill: whether to use Eq. 5.
            levels: ``p3_prime``, ``p2_prime`` or both, the levels compared with the teacher.
            positive_weight: lambda of Eq. 8.
            loss_weight: weight of Eq. 5.
            view: ``downsample``: the student's image is the average of the teacher's, which is
                loaded at twice the side; ``upsample``: the teacher's image is interpolated from the
                student's.
            teacher: a separate pyramid that computes the targets; it is frozen and not part of the
                state dict. None: the student's own pyramid.
            trained: prefixes of the parameters that are trained; the others are frozen. None: all
                are trained.
            kwargs: see :class:`EFPNRCNN`.

        Raises:
            ValueError: if a view or level is unknown, or no parameter would be trained.
        """
        super().__init__(**kwargs)
        if trained is not None:
            freeze_all_but(self, trained)
        if view not in VIEWS:
            raise ValueError(f"DISTILL.VIEW is '{view}': use one of {', '.join(VIEWS)}.")
        unknown = set(levels) - {"p3_prime", "p2_prime"}
        if distill and (unknown or not levels):
            raise ValueError(f"DISTILL.LEVELS is {list(levels)}: use p3_prime, p2_prime or both.")
        self.detect = detect
        self.distill = distill
        self.levels = tuple(levels)
        self.positive_weight = positive_weight
        self.loss_weight = loss_weight
        self.view = view
        # A tuple, so that the teacher's parameters are not registered in this module.
        self._teachers: tuple[Backbone, ...] = ()
        if teacher is not None:
            self._teachers = (teacher.requires_grad_(False).eval(),)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor, from ``cfg.MODEL`` and ``cfg.DISTILL``.

        Raises:
            StageError: if the stage trains or compares a P'2 that the pyramid does not have; see
                also :func:`build_teacher`.
            ValueError: see :class:`EFPNRCNN`.
        """
        ret = super().from_config(cfg)
        node = cfg.DISTILL
        stage = get_stage(node.STAGE)
        _check_pyramid(cfg, ret["backbone"])
        ret.update(
            detect=stage.detects,
            distill=stage.distills,
            levels=node.LEVELS,
            positive_weight=node.POSITIVE_WEIGHT,
            loss_weight=node.LOSS_WEIGHT,
            view=node.VIEW,
            teacher=build_teacher(cfg),
            trained=None if stage.trained is None else stage.trained(cfg),
        )
        return ret

    @property
    def teacher(self) -> Backbone:
        """The pyramid that computes the targets: the student's own or a separate one."""
        return self._teachers[0] if self._teachers else self.backbone

    def train(self, mode: bool = True) -> "DistillationRCNN":
        """Set the training mode of all modules except frozen ones."""
        super().train(mode)
        eval_frozen_modules(self)
        return self

    @torch.jit.unused
    def _losses(self, batched_inputs: list[dict[str, Any]]) -> Losses:
        """Compute the losses of the stage.

        Args:
            batched_inputs: see ``GeneralizedRCNN``, with ``teacher_image`` if needed (see the
                class).

        Returns:
            The losses, with ``loss_distill_p3_global``, ``loss_distill_p3_positive`` and the same
            for ``p2``.

        Raises:
            KeyError: if there is no ``teacher_image``.
        """
        if not self.distill:
            return super()._losses(batched_inputs)
        instances = self._instances(batched_inputs)
        images, teacher_images = self._views(batched_inputs)
        if not self.detect:
            maps = self.backbone.student_maps(images.tensor)
            return self._distillation_losses(maps, teacher_images, instances)
        return self._joint_losses(batched_inputs, images, teacher_images, instances)

    def _views(self, batched_inputs: list[dict[str, Any]]) -> tuple[ImageList, Tensor]:
        """Return the student's images, and the teacher's (N, 3, 2H, 2W)."""
        if self.view == "downsample":
            if not all("teacher_image" in x for x in batched_inputs):
                raise KeyError(
                    "DISTILL.VIEW is downsample, but the batch has no teacher_image: use "
                    "DistillationTrainer or efpn_d2.data.mappers.build_distillation_mapper to load "
                    "it, or set DISTILL.VIEW to upsample."
                )
            batched_inputs = [{"image": x["teacher_image"]} for x in batched_inputs]
        images = self.preprocess_image(batched_inputs)
        return make_views(images, self.view, self.backbone.size_divisibility)

    def _joint_losses(
        self,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        teacher_images: Tensor,
        instances: list[Instances],
    ) -> Losses:
        backbone = self.backbone
        bottom_up = backbone.bottom_up(images.tensor)
        merged = backbone.top_down(bottom_up)
        maps = backbone.extend(bottom_up, merged)
        features, mask_logits = backbone.enhance_with_masks(
            backbone.outputs(bottom_up, merged, maps["p2_prime"])
        )
        of_proposals, of_boxes = self._detection_losses(batched_inputs, images, features, instances)
        of_masks: Losses = {}
        if self.mask_supervision is not None and learns_masks(backbone):
            of_masks = self.mask_supervision(mask_logits, instances)
        if not self._teachers:
            maps = self._extend_alone(bottom_up, merged)
        of_maps = self._distillation_losses(maps, teacher_images, instances)
        return {**of_proposals, **of_masks, **of_boxes, **of_maps}

    def _extend_alone(
        self, bottom_up: dict[str, Tensor], merged: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute P'3 and P'2 again, without gradients to the network before the extension.

        The network also computes the targets, so it could reduce Eq. 5 by making all levels less
        informative. Eq. 5 therefore trains the extension only, as in the stage ``distill``. [ours]
        """
        inputs = ({k: v.detach() for k, v in maps.items()} for maps in (bottom_up, merged))
        with _without_momentum(self.backbone.extension):
            return self.backbone.extend(*inputs)

    def _distillation_losses(
        self, maps: dict[str, Tensor], teacher_images: Tensor, instances: list[Instances]
    ) -> Losses:
        """Compute the terms of Eq. 5."""
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
        # A separate teacher is not a child, so it does not follow this module to its device.
        teacher = self.teacher.to(images.device)
        training = [m for m in teacher.modules() if m.training]
        teacher.eval()
        try:
            return teacher.teacher_maps(images)
        finally:
            for module in training:
                module.training = True


def _check_pyramid(cfg: CfgNode, backbone: Backbone) -> None:
    name = cfg.DISTILL.STAGE
    stage = get_stage(name)
    if not stage.is_plain and not hasattr(backbone, "extension"):
        raise StageError(
            f"DISTILL.STAGE {name} trains P'2, which {cfg.MODEL.BACKBONE.NAME} does not have: "
            "set MODEL.BACKBONE.NAME to build_resnet_efpn_backbone."
        )
    shapes = backbone.output_shape()
    if stage.distills and shapes["p2_prime"].channels != shapes["p3"].channels:
        raise StageError(
            f"DISTILL.STAGE {name} compares P'2, which has {shapes['p2_prime'].channels} channels, "
            f"with P2, which has {shapes['p3'].channels}: use DISTILL.STAGE finetune or add_on, or "
            "MODEL.EFPN.PRESET paper with P2_PRIME_CHANNELS 0."
        )


@contextlib.contextmanager
def _without_momentum(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch normalization unchanged."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    momenta = [m.momentum for m in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
