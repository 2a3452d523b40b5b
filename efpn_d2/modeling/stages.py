"""The stages of training, and the registered names that each of them is trained with."""

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from efpn_d2.config import require_node

STAGES = ("", "base", "distill", "head", "joint", "finetune", "add_on")

# Stages that train the configured detector as it is.
PLAIN = ("", "base", "finetune")
# Stages that compare P'3 and P'2 with a teacher's maps.
DISTILLED = ("distill", "joint")

_DISTILLATION = "DistillationRCNN"
# What becomes that, or these heads in the stage "head".
_DETECTORS = ("GeneralizedRCNN", "EFPNRCNN")
_HEADS, _OHEM_HEADS = "EFPNROIHeads", "OHEMSmallROIHeads"


class StageError(ValueError):
    """A stage that cannot be trained as it is configured; the message says what to do."""


def stage_config(cfg: CfgNode) -> CfgNode:
    """``cfg`` with the registered names that its stage is trained with.

    Every stage but the plain ones has ``DistillationRCNN``, and ``head`` has ``OHEMSmallROIHeads``.

    Args:
        cfg: a config; not changed.

    Returns:
        A config that names them; ``cfg`` itself if it does already.

    Raises:
        StageError: the stage is unknown or does not fit the configured detector.
        KeyError: ``add_efpn_config`` was not called.
    """
    stage = require_node(cfg, "DISTILL").STAGE
    if stage not in STAGES:
        raise StageError(
            f"DISTILL.STAGE is '{stage}', which does not exist: use '' or one of "
            f"{', '.join(STAGES[1:])}."
        )
    if stage in PLAIN:
        return cfg
    architecture, heads = cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ROI_HEADS.NAME
    if architecture in _DETECTORS:
        architecture = _DISTILLATION
    elif not _distills(architecture):
        raise StageError(
            f"DISTILL.STAGE {stage} trains two-stage detectors, but MODEL.META_ARCHITECTURE is "
            f"{architecture}: use {_DISTILLATION} or DISTILL.STAGE ''."
        )
    if stage == "head":
        if heads not in (_HEADS, _OHEM_HEADS):
            raise StageError(
                f"DISTILL.STAGE head trains {_HEADS}, but MODEL.ROI_HEADS.NAME is {heads}: train "
                "it with DISTILL.STAGE joint."
            )
        heads = _OHEM_HEADS
    own = cfg.clone()
    own.defrost()
    own.MODEL.META_ARCHITECTURE, own.MODEL.ROI_HEADS.NAME = architecture, heads
    return cfg if own == cfg else own


def check_stage(cfg: CfgNode) -> None:
    """Check that a config names what its stage is trained with.

    Raises:
        StageError: it does not; the message names key and value. Or as :func:`stage_config`.
        KeyError: ``add_efpn_config`` was not called.
    """
    wanted = stage_config(cfg)
    for key, own, other in (
        ("META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, wanted.MODEL.META_ARCHITECTURE),
        ("ROI_HEADS.NAME", cfg.MODEL.ROI_HEADS.NAME, wanted.MODEL.ROI_HEADS.NAME),
    ):
        if own != other:
            raise StageError(
                f"DISTILL.STAGE is {cfg.DISTILL.STAGE}, but MODEL.{key} is {own}, which does not "
                f"train it: set MODEL.{key} to {other}, or DISTILL.STAGE to ''."
            )


def without_stage(cfg: CfgNode) -> CfgNode:
    """``cfg`` for inference, which needs nothing that only a stage's training does, as a teacher.

    Raises:
        KeyError: ``add_efpn_config`` was not called.
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
