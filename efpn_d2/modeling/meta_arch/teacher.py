"""Separate teacher of the distillation."""

import os
from typing import TYPE_CHECKING, Any

from detectron2.config import CfgNode
from detectron2.modeling import Backbone, build_backbone
from torch import nn

from efpn_d2.checkpoint import EFPNCheckpointer, missing_below
from efpn_d2.modeling.stage_table import StageError, get_stage

if TYPE_CHECKING:
    from fvcore.common.checkpoint import _IncompatibleKeys


_PYRAMID = ("backbone.bottom_up.", "backbone.fpn_")


def build_teacher(cfg: CfgNode) -> Backbone | None:
    """Build the pyramid of ``cfg`` with ``DISTILL.TEACHER_WEIGHTS``; None: no separate teacher.

    Args:
        cfg: a config.

    Raises:
        StageError: if the file does not exist or lacks weights of the pyramid.
    """
    if not get_stage(cfg.DISTILL.STAGE).distills or not cfg.DISTILL.TEACHER_WEIGHTS:
        return None
    detector = nn.ModuleDict({"backbone": build_backbone(cfg)})
    _TeacherCheckpointer(detector).load(cfg.DISTILL.TEACHER_WEIGHTS)
    return detector["backbone"]


class _TeacherCheckpointer(EFPNCheckpointer):
    """Load only files with the whole pyramid, since random features are no useful targets.

    An SGDM that the file lacks is the identity.
    """

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint as the base class does.

        Raises:
            StageError: if the file does not exist or lacks weights of the pyramid.
        """
        self._path = path
        if "://" not in path and not os.path.isfile(path):
            raise StageError(f"DISTILL.TEACHER_WEIGHTS: the file '{path}' does not exist.")
        return super().load(path, checkpointables)

    def _initialize_new_parts(self, incompatible: "_IncompatibleKeys") -> None:
        absent = [k for k in missing_below(incompatible, _PYRAMID) if ".sgdm." not in k]
        if absent:
            raise StageError(
                f"DISTILL.TEACHER_WEIGHTS: '{self._path}' lacks {len(absent)} tensors of the "
                f"pyramid, such as {absent[0]}: use a detector with this backbone and width."
            )
