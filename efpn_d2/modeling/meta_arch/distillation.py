"""Detector that learns P'3 and P'2 from what it sees at twice the scale (paper III-C)."""

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
from efpn_d2.modeling.freezing import eval_frozen_modules
from efpn_d2.modeling.mask_supervision import learns_masks
from efpn_d2.modeling.meta_arch.rcnn import EFPNRCNN, Losses
from efpn_d2.modeling.meta_arch.teacher import build_teacher
from efpn_d2.modeling.meta_arch.views import VIEWS, make_views
from efpn_d2.modeling.stage_table import StageError, get_stage


@META_ARCH_REGISTRY.register()
class DistillationRCNN(EFPNRCNN):
    """:class:`EFPNRCNN` with cross-resolution distillation in training [paper III-C, Eq. 5].

    Teacher and student are one network, without a second copy in memory: the teacher's maps come
    from the image at twice the side, under ``no_grad`` and in evaluation mode. The state dict is
    that of ``GeneralizedRCNN``, and so is inference. Modules without trainable parameters stay in
    evaluation mode in training.

    In training by Eq. 5 with ``DISTILL.VIEW`` ``downsample``, the elements of a batch also have
    ``teacher_image`` (C, 2H, 2W), whose mean the student's input is; ``image`` and ``instances``
    are the student's, as in all stages.

    Next to the detector's losses, which train everything, Eq. 5 trains the extension alone, for
    which that runs twice; by another teacher, whose targets are fixed, it trains all before it too.
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
        **kwargs: Any,
    ) -> None:
        """
        Args:
            detect: train by the detector's losses. Without it RPN and heads do not run in training.
            distill: train by Eq. 5.
            levels: which of ``p3_prime`` and ``p2_prime`` are compared with the teacher.
            positive_weight: lambda of Eq. 8.
            loss_weight: weight of Eq. 5.
            view: ``downsample``: the student sees the means of the teacher's image, which is loaded
                at twice the side; ``upsample``: the teacher sees the student's image, interpolated.
            teacher: another pyramid, whose maps are the targets; frozen here, and no part of the
                state dict. None: the student's own pyramid.
            kwargs: those of :class:`EFPNRCNN`.

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
        self._teachers: tuple[Backbone, ...] = ()
        if teacher is not None:
            self._teachers = (teacher.requires_grad_(False).eval(),)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of the constructor, from ``cfg.MODEL`` and ``cfg.DISTILL``.

        Raises:
            StageError: the stage trains or compares a P'2 that the pyramid does not have, or as
                :func:`build_teacher`.
            ValueError: as for :class:`EFPNRCNN`.
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
        )
        return ret

    @property
    def teacher(self) -> Backbone:
        """The pyramid whose maps are the targets, which is the student's own or another one."""
        return self._teachers[0] if self._teachers else self.backbone

    def train(self, mode: bool = True) -> "DistillationRCNN":
        """As for any module, but what is frozen stays in evaluation mode."""
        super().train(mode)
        eval_frozen_modules(self)
        return self

    @torch.jit.unused
    def _losses(self, batched_inputs: list[dict[str, Any]]) -> Losses:
        """
        Args:
            batched_inputs: as for ``GeneralizedRCNN``, with ``teacher_image`` where the class asks
                for it.

        Returns:
            The losses, with ``loss_distill_p3_global``, ``loss_distill_p3_positive`` and the same
            of ``p2``.

        Raises:
            KeyError: there is no ``teacher_image``.
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
        """The student's images, and the teacher's (N, 3, 2H, 2W)."""
        if self.view == "downsample":
            if not all("teacher_image" in x for x in batched_inputs):
                raise KeyError(
                    "DISTILL.VIEW is downsample, but the batch has no teacher_image: let "
                    "DistillationTrainer load it, or efpn_d2.data.mappers.build_distillation_mapper"
                    " map it, or set the key to upsample."
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
        """P'3 and P'2 once more, without a gradient path to the network before the extension.

        That network makes the targets, too. It could bring both closer by saying less, at the cost
        of all levels; so Eq. 5 teaches the extension alone, as in the stage ``distill``. [ours]
        """
        inputs = ({k: v.detach() for k, v in maps.items()} for maps in (bottom_up, merged))
        with _without_momentum(self.backbone.extension):
            return self.backbone.extend(*inputs)

    def _distillation_losses(
        self, maps: dict[str, Tensor], teacher_images: Tensor, instances: list[Instances]
    ) -> Losses:
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
        # Another one, which is no child, does not follow this module to its device.
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
            f"DISTILL.STAGE {name} compares P'2, which has {shapes['p2_prime'].channels} channels "
            f"here, with a P2 of {shapes['p3'].channels}: use DISTILL.STAGE finetune or add_on, or "
            "MODEL.EFPN.PRESET paper with P2_PRIME_CHANNELS 0."
        )


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
