"""The trainer of a stage, and the checkpoints that it starts from."""

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
from efpn_d2.modeling.stage_table import SMALL_RPN_HEAD, StageError, get_stage
from efpn_d2.modeling.stages import stage_config

if TYPE_CHECKING:
    from fvcore.common.checkpoint import _IncompatibleKeys


class DistillationTrainer(EFPNTrainer):
    """:class:`EFPNTrainer` of the stage ``DISTILL.STAGE``. Only ``build_*`` methods differ.

    :mod:`efpn_d2.modeling.stage_table` says what each stage trains, and by which losses. The
    checkpoints of every stage are plain detector checkpoints.
    """

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The detector of the stage, with what it does not train frozen.

        Raises:
            StageError: the stage is unknown or does not fit the configured detector.
        """
        stage = get_stage(cfg.DISTILL.STAGE)
        model = super().build_model(stage_config(cfg))
        if stage.trained is not None:
            freeze_all_but(model, stage.trained(cfg))
        return model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader[Any]:
        """As :class:`EFPNTrainer`'s, with the teacher's view where there is a teacher."""
        if get_stage(cfg.DISTILL.STAGE).distills:
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

    def __init__(self, model: nn.Module, save_dir: str = "", *, stage: str, **kwargs: Any) -> None:
        """
        Args:
            stage: ``DISTILL.STAGE``.
            model, save_dir, kwargs: those of :class:`EFPNCheckpointer`.
        """
        super().__init__(model, save_dir, **kwargs)
        self._name, self._stage = stage, get_stage(stage)
        self._path = ""

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """As in the base class.

        Raises:
            StageError: the file, or its absence, is not what the stage starts from.
        """
        self._path = path
        if not path and self._stage.starts_from:
            self._refuse("MODEL.WEIGHTS is empty")
        return super().load(path, checkpointables)

    def _initialize_new_parts(self, incompatible: "_IncompatibleKeys") -> None:
        # Before new parts are made of stock ones, while it shows what the file held.
        for prefix in self._stage.needs:
            absent = missing_below(incompatible, (prefix,))
            if any(not key.startswith(SMALL_RPN_HEAD) for key in absent):
                self._refuse(f"'{self._path}' lacks fitting weights below {prefix.rstrip('.')}")
        super()._initialize_new_parts(incompatible)

    def _refuse(self, reason: str) -> None:
        raise StageError(
            f"DISTILL.STAGE {self._name} starts from the output of stage "
            f"{self._stage.starts_from}, but {reason}: set MODEL.WEIGHTS to that output."
        )
