"""The stages of training: base, distill, head, or all in one (paper IV-A3); add-on (ours)."""

import weakref
from typing import TYPE_CHECKING, Any

from detectron2.config import CfgNode
from torch import nn
from torch.utils.data import DataLoader

from efpn_d2.checkpoint import EFPNCheckpointer, missing_below
from efpn_d2.data.mappers import build_distillation_mapper
from efpn_d2.engine.resumable_loader import build_resumable_train_loader
from efpn_d2.engine.trainer import EFPNTrainer
from efpn_d2.modeling.freezing import freeze_all_but
from efpn_d2.modeling.stages import DISTILLED, StageError, stage_config

if TYPE_CHECKING:
    from fvcore.common.checkpoint import _IncompatibleKeys


_EXTENSION, _SMALL_HEADS = "backbone.extension.", "roi_heads.small_"
_SMALL_RPN_HEAD = "proposal_generator.rpn_head.small_"
_FTT = "backbone.extension.upsampler."
_DETECTOR = (
    *("backbone.bottom_up.", "backbone.fpn_", "proposal_generator."),
    *("roi_heads.box_", "roi_heads.mask_", "roi_heads.keypoint_"),
)


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
        model = super().build_model(stage_config(cfg))
        if stage == "distill":
            # Eq. 5 of P'3 alone reaches nothing behind it.
            freeze_all_but(model, (_EXTENSION if "p2_prime" in cfg.DISTILL.LEVELS else _FTT,))
        elif stage == "head":
            trained = (_SMALL_HEADS, _EXTENSION)
            freeze_all_but(model, trained if cfg.DISTILL.UNFREEZE_EXTENSION else trained[:1])
        elif stage == "add_on":
            freeze_all_but(model, (_EXTENSION, _SMALL_HEADS, _SMALL_RPN_HEAD))
        return model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader[Any]:
        """As :class:`EFPNTrainer`'s, with the teacher's view where there is a teacher."""
        if cfg.DISTILL.STAGE in DISTILLED:
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
            absent = missing_below(incompatible, (prefix,))
            if any(not key.startswith(_SMALL_RPN_HEAD) for key in absent):
                self._refuse(f"'{self._path}' lacks fitting weights below {prefix.rstrip('.')}")
        super()._initialize_new_parts(incompatible)

    def _refuse(self, reason: str) -> None:
        before, _ = self._NEEDS[self._stage]
        raise StageError(
            f"DISTILL.STAGE {self._stage} starts from the output of stage {before}, but {reason}: "
            "set MODEL.WEIGHTS to that output."
        )
