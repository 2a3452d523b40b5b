"""Trainer of a single stage, and the checkpointer that verifies its initial weights."""

import weakref
from typing import TYPE_CHECKING, Any

from detectron2.config import CfgNode
from torch import nn
from torch.utils.data import DataLoader

from efpn_d2.checkpoint import EFPNCheckpointer, missing_below
from efpn_d2.data.mappers import build_distillation_mapper
from efpn_d2.engine.resumable_loader import build_resumable_train_loader
from efpn_d2.engine.trainer import EFPNTrainer
from efpn_d2.modeling.stage_config import stage_config
from efpn_d2.modeling.stage_table import SMALL_RPN_HEAD, StageError, get_stage

if TYPE_CHECKING:
    from fvcore.common.checkpoint import _IncompatibleKeys


class DistillationTrainer(EFPNTrainer):
    """:class:`EFPNTrainer` of the stage ``DISTILL.STAGE``; only ``build_*`` methods differ.

    :mod:`efpn_d2.modeling.stage_table` defines which parameters a stage trains, and with which
    losses. The checkpoints of every stage are plain detector checkpoints.
    """

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the detector of the stage.

        Raises:
            StageError: if the stage is unknown or does not fit the configured detector.
        """
        return super().build_model(stage_config(cfg))

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader[Any]:
        """Build the loader of :class:`EFPNTrainer`, with the teacher's view if needed."""
        if get_stage(cfg.DISTILL.STAGE).distills:
            return build_resumable_train_loader(cfg, mapper=build_distillation_mapper(cfg))
        return super().build_train_loader(cfg)

    def build_checkpointer(self) -> EFPNCheckpointer:
        """Build a checkpointer that refuses the weights of a wrong earlier stage."""
        return StageCheckpointer(
            self.model,
            self.cfg.OUTPUT_DIR,
            stage=self.cfg.DISTILL.STAGE,
            init_from_stock=self.cfg.MODEL.EFPN.INIT_FROM_STOCK,
            trainer=weakref.proxy(self),
        )


class StageCheckpointer(EFPNCheckpointer):
    """:class:`EFPNCheckpointer` that loads only weights from which the stage can start."""

    def __init__(self, model: nn.Module, save_dir: str = "", *, stage: str, **kwargs: Any) -> None:
        """
        Args:
            model: see :class:`EFPNCheckpointer`.
            save_dir: see :class:`EFPNCheckpointer`.
            stage: ``DISTILL.STAGE``.
            kwargs: see :class:`EFPNCheckpointer`.
        """
        super().__init__(model, save_dir, **kwargs)
        self._name, self._stage = stage, get_stage(stage)
        self._path = ""

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint as the base class does, after the stage's checks.

        Raises:
            StageError: if the stage needs weights that ``path`` does not provide.
        """
        self._path = path
        if not path and self._stage.starts_from:
            self._refuse("MODEL.WEIGHTS is empty")
        return super().load(path, checkpointables)

    def _initialize_new_parts(self, incompatible: "_IncompatibleKeys") -> None:
        # Check before new parts are initialized from stock ones: ``incompatible`` still shows what
        # the file lacks.
        for prefix in self._stage.needs:
            absent = missing_below(incompatible, (prefix,))
            if any(not key.startswith(SMALL_RPN_HEAD) for key in absent):
                self._refuse(f"'{self._path}' has no matching weights below {prefix.rstrip('.')}")
        super()._initialize_new_parts(incompatible)

    def _refuse(self, reason: str) -> None:
        raise StageError(
            f"DISTILL.STAGE {self._name} starts from the output of stage "
            f"{self._stage.starts_from}, but {reason}: set MODEL.WEIGHTS to that output."
        )
