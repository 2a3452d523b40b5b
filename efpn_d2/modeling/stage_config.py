"""Config of a stage: the registered classes for its training, and for inference."""

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from efpn_d2.config import require_node
from efpn_d2.modeling.stage_table import StageError, get_stage

_DISTILLATION = "DistillationRCNN"
_DETECTORS = ("GeneralizedRCNN", "EFPNRCNN")  # replaced by it


def stage_config(cfg: CfgNode) -> CfgNode:
    """Return ``cfg`` with the registered names of the classes that train its stage.

    They are ``DistillationRCNN`` for all stages except the plain ones, and ``OHEMSmallROIHeads``
    for ``head``.

    Args:
        cfg: a config; not changed.

    Returns:
        A copy with these names, or ``cfg`` itself if it already has them.

    Raises:
        StageError: if the stage is unknown or does not fit the configured detector.
        KeyError: if ``add_efpn_config`` was not called.
    """
    name = require_node(cfg, "DISTILL").STAGE
    stage = get_stage(name)
    if stage.is_plain:
        return cfg
    architecture, heads = cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ROI_HEADS.NAME
    if architecture in _DETECTORS:
        architecture = _DISTILLATION
    elif not _distills(architecture):
        raise StageError(
            f"DISTILL.STAGE {name} trains two-stage detectors, but MODEL.META_ARCHITECTURE is "
            f"{architecture}: use {_DISTILLATION} or DISTILL.STAGE ''."
        )
    if stage.roi_heads is not None:
        if heads not in stage.roi_heads:
            raise StageError(
                f"DISTILL.STAGE {name} trains {stage.roi_heads[0]}, but MODEL.ROI_HEADS.NAME is "
                f"{heads}: train it with DISTILL.STAGE joint."
            )
        _, heads = stage.roi_heads
    own = cfg.clone()
    own.defrost()
    own.MODEL.META_ARCHITECTURE, own.MODEL.ROI_HEADS.NAME = architecture, heads
    return cfg if own == cfg else own


def check_stage(cfg: CfgNode) -> None:
    """Check that a config has the registered names of the classes that train its stage.

    Raises:
        StageError: if it does not; the message names key and value. See also :func:`stage_config`.
        KeyError: if ``add_efpn_config`` was not called.
    """
    wanted = stage_config(cfg)
    for key, own, other in (
        ("META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, wanted.MODEL.META_ARCHITECTURE),
        ("ROI_HEADS.NAME", cfg.MODEL.ROI_HEADS.NAME, wanted.MODEL.ROI_HEADS.NAME),
    ):
        if own != other:
            raise StageError(
                f"DISTILL.STAGE is {cfg.DISTILL.STAGE}, but it is ignored by MODEL.{key} {own}: "
                f"set MODEL.{key} to {other}, or DISTILL.STAGE to ''."
            )


def without_stage(cfg: CfgNode) -> CfgNode:
    """Return ``cfg`` without a stage, for inference, e.g. by a teacher.

    Raises:
        KeyError: if ``add_efpn_config`` was not called.
    """
    if not require_node(cfg, "DISTILL").STAGE:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DISTILL.STAGE = ""
    return cfg


def _distills(name: str) -> bool:
    if name not in META_ARCH_REGISTRY:
        return False
    return issubclass(META_ARCH_REGISTRY.get(name), META_ARCH_REGISTRY.get(_DISTILLATION))
