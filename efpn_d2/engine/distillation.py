"""The stages of training: base, distill, head, or all in one (paper IV-A3); add-on (ours)."""

import os
import weakref
from typing import TYPE_CHECKING, Any

from detectron2.config import CfgNode
from detectron2.modeling import Backbone, build_backbone
from torch import nn
from torch.utils.data import DataLoader

from efpn_d2.checkpoint import EFPNCheckpointer
from efpn_d2.data.mappers import build_distillation_mapper
from efpn_d2.engine.resumable_loader import build_resumable_train_loader
from efpn_d2.engine.trainer import EFPNTrainer
from efpn_d2.modeling.freezing import freeze_all_but

if TYPE_CHECKING:
    from fvcore.common.checkpoint import _IncompatibleKeys


STAGES = ("", "base", "distill", "head", "joint", "finetune", "add_on")

# Stages that train the configured detector as it is.
_PLAIN = ("", "base", "finetune")
# Stages that compare P'3 and P'2 with a teacher's maps.
_DISTILLED = ("distill", "joint")

_EXTENSION, _SMALL_HEADS = "backbone.extension.", "roi_heads.small_"
_SMALL_RPN_HEAD = "proposal_generator.rpn_head.small_"
_FTT = "backbone.extension.upsampler."
_PYRAMID = ("backbone.bottom_up.", "backbone.fpn_")
_HEADS = ("proposal_generator.", "roi_heads.box_", "roi_heads.mask_", "roi_heads.keypoint_")
_DETECTOR = (*_PYRAMID, *_HEADS)
# Batch normalisation does not compute with it, and a frozen network that goes on does not have it.
_UNUSED = ".num_batches_tracked"


class StageError(ValueError):
    """A stage that cannot be trained as it is configured; the message says what to do."""


class DistillationTrainer(EFPNTrainer):
    """:class:`EFPNTrainer` of the stage ``DISTILL.STAGE``. Only ``build_*`` methods differ.

    ``base``, ``finetune`` and the empty stage train the configured detector as it is. ``distill``
    trains ``backbone.extension`` by Eq. 5 alone, ``head`` the heads on P'2 alone, ``joint``
    everything by all losses, ``add_on`` the extension and the heads on P'2 by the detector's
    losses. Every stage's checkpoints are plain detector checkpoints.
    """

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The detector of the stage, with what it does not train frozen.

        Raises:
            StageError: the stage is unknown or does not fit the configured detector.
        """
        stage = cfg.DISTILL.STAGE
        model: Any = super().build_model(stage_config(cfg))  # of whatever class ``cfg`` names
        if stage not in _PLAIN and not hasattr(model.backbone, "extension"):
            raise StageError(
                f"DISTILL.STAGE {stage} trains P'2, which {cfg.MODEL.BACKBONE.NAME} does not have: "
                "set MODEL.BACKBONE.NAME to build_resnet_efpn_backbone."
            )
        if stage in _DISTILLED:
            _check_width(stage, model.backbone)
        if stage == "distill":
            # Eq. 5 of P'3 alone reaches nothing behind it.
            freeze_all_but(model, (_EXTENSION if "p2_prime" in cfg.DISTILL.LEVELS else _FTT,))
        elif stage == "head":
            trained = (_SMALL_HEADS, _EXTENSION)
            freeze_all_but(model, trained if cfg.DISTILL.UNFREEZE_EXTENSION else trained[:1])
        elif stage == "add_on":
            freeze_all_but(model, (_EXTENSION, _SMALL_HEADS, _SMALL_RPN_HEAD))
        if stage in _DISTILLED and cfg.DISTILL.TEACHER_WEIGHTS:
            teacher = nn.ModuleDict({"backbone": build_backbone(cfg)})
            _TeacherCheckpointer(teacher).load(cfg.DISTILL.TEACHER_WEIGHTS)
            model.set_teacher(teacher["backbone"])
        return model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader[Any]:
        """As :class:`EFPNTrainer`'s, with the teacher's view where there is a teacher."""
        if cfg.DISTILL.STAGE in _DISTILLED:
            return build_resumable_train_loader(cfg, mapper=build_distillation_mapper(cfg))
        return super().build_train_loader(cfg)

    def build_checkpointer(self) -> EFPNCheckpointer:
        """As :class:`EFPNTrainer`'s, but it refuses the weights of a wrong earlier stage."""
        return StageCheckpointer(
            self.model,
            self.cfg.OUTPUT_DIR,
            stage=self.cfg.DISTILL.STAGE,
            init_from_stock=self.cfg.MODEL.EFPN.INIT_FROM_STOCK,
            trainer=weakref.proxy(self),
        )


def stage_config(cfg: CfgNode) -> CfgNode:
    """``cfg`` with the registered names that its stage trains with.

    Raises:
        StageError: the stage is unknown or does not fit the configured detector.
    """
    stage = cfg.DISTILL.STAGE
    if stage not in STAGES:
        raise StageError(
            f"DISTILL.STAGE is '{stage}', which does not exist: use '' or one of "
            f"{', '.join(STAGES[1:])}."
        )
    if stage in _PLAIN:
        return cfg
    heads, meta_architecture = cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.META_ARCHITECTURE
    if meta_architecture != "GeneralizedRCNN":
        raise StageError(
            f"DISTILL.STAGE {stage} trains two-stage detectors, but MODEL.META_ARCHITECTURE is "
            f"{meta_architecture}: use GeneralizedRCNN or DISTILL.STAGE ''."
        )
    if stage == "head" and heads != "EFPNROIHeads":
        raise StageError(
            f"DISTILL.STAGE head trains EFPNROIHeads, but MODEL.ROI_HEADS.NAME is {heads}: train "
            "it with DISTILL.STAGE joint."
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.META_ARCHITECTURE = "DistillationRCNN"
    if stage == "head":
        cfg.MODEL.ROI_HEADS.NAME = "OHEMSmallROIHeads"
    return cfg


def _check_width(stage: str, backbone: Backbone) -> None:
    shapes = backbone.output_shape()
    own, teacher = shapes["p2_prime"].channels, shapes["p3"].channels
    if own != teacher:
        raise StageError(
            f"DISTILL.STAGE {stage} compares P'2, which has {own} channels here, with a P2 of "
            f"{teacher}: use DISTILL.STAGE finetune or add_on, or MODEL.EFPN.PRESET paper with "
            "P2_PRIME_CHANNELS 0."
        )


def missing(incompatible: "_IncompatibleKeys", prefixes: tuple[str, ...]) -> list[str]:
    """The weights below ``prefixes`` that a loaded file did not have in their shape."""
    keys = incompatible.missing_keys
    return [k for k in keys if k.startswith(prefixes) and not k.endswith(_UNUSED)]


class _TeacherCheckpointer(EFPNCheckpointer):
    """Loads only files with the whole pyramid: random maps are nothing to learn from.

    An SGDM that the file lacks is the identity.
    """

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """As in the base class.

        Raises:
            StageError: there is no such file, or it lacks weights of the pyramid.
        """
        self._path = path
        if "://" not in path and not os.path.isfile(path):
            raise StageError(f"DISTILL.TEACHER_WEIGHTS: there is no file '{path}'.")
        return super().load(path, checkpointables)

    def _initialize_new_parts(self, incompatible: "_IncompatibleKeys") -> None:
        absent = [k for k in missing(incompatible, _PYRAMID) if ".sgdm." not in k]
        if absent:
            raise StageError(
                f"DISTILL.TEACHER_WEIGHTS: '{self._path}' lacks {len(absent)} tensors that fit the "
                f"pyramid ({absent[0]} is one): name a detector with this backbone and width."
            )


class StageCheckpointer(EFPNCheckpointer):
    """:class:`EFPNCheckpointer` that loads only what the stage can start from."""

    _NEEDS = {
        "distill": ("base", _DETECTOR),
        "head": ("distill", (*_DETECTOR, _EXTENSION)),
        # Neither trained nor in the file, what is inserted into the pyramid would stay at random.
        "add_on": ("base", (*_DETECTOR, "backbone.enhancement.")),
    }

    def __init__(self, model: nn.Module, save_dir: str = "", *, stage: str, **kwargs: Any) -> None:
        """
        Args:
            stage: ``DISTILL.STAGE``.
            model, save_dir, kwargs: those of :class:`EFPNCheckpointer`.
        """
        super().__init__(model, save_dir, **kwargs)
        self._stage = stage
        self._path = ""

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """As in the base class.

        Raises:
            StageError: the file, or its absence, is not what the stage starts from.
        """
        self._path = path
        if not path and self._stage in self._NEEDS:
            self._refuse("MODEL.WEIGHTS is empty")
        return super().load(path, checkpointables)

    def _initialize_new_parts(self, incompatible: "_IncompatibleKeys") -> None:
        # Before new parts are made of stock ones, while it shows what the file held.
        _, needed = self._NEEDS.get(self._stage, ("", ()))
        for prefix in needed:
            absent = missing(incompatible, (prefix,))
            if any(not key.startswith(_SMALL_RPN_HEAD) for key in absent):
                self._refuse(f"'{self._path}' lacks fitting weights below {prefix.rstrip('.')}")
        super()._initialize_new_parts(incompatible)

    def _refuse(self, reason: str) -> None:
        before, _ = self._NEEDS[self._stage]
        raise StageError(
            f"DISTILL.STAGE {self._stage} starts from the output of stage {before}, but {reason}: "
            "set MODEL.WEIGHTS to that output."
        )
