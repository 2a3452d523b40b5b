"""Checks that every enabled option is supported by the parts that the config names.

Every builder of this package and every command runs them. A detector built without a command from
Detectron2's own parts only does not run code of this package, so it cannot be checked.
"""

from collections.abc import Iterable

from detectron2.config import CfgNode

from efpn_d2.config import require_node
from efpn_d2.modeling.stage_config import check_stage
from efpn_d2.modeling.stock_names import ENHANCED_BUILDERS, EXTENDED, MASK_LOSS_ARCHITECTURES


def check_config(cfg: CfgNode) -> None:
    """Check that the parts named by ``cfg`` support all options that it enables.

    The options are the stage, the modules inserted into the backbone (CEM, FBSM, SGDM), the loss of
    FBSM's masks, DCLoss and the similarity of label assignment.

    Args:
        cfg: a config.

    Raises:
        ValueError: if an option is ignored by one of Detectron2's own parts or has no supporting
            part (the message names key, value and what to use), the weight of the mask loss is
            negative, or there are no masks.
        StageError: see :func:`check_stage`.
        KeyError: if ``add_efpn_config`` was not called.
    """
    check_stage(cfg)
    _check_enhancement(cfg)
    _check_mask_loss(cfg)
    if require_node(cfg, "MODEL.EFPN_BS").DCLOSS_ENABLED:
        check_extended(cfg, "MODEL.EFPN_BS.DCLOSS_ENABLED", ["PROPOSAL_GENERATOR", "ROI_HEADS"])
    _check_similarity(cfg)


def is_enhanced(cfg: CfgNode) -> bool:
    """Check whether ``cfg`` inserts modules into the backbone, after stages or on levels.

    Raises:
        KeyError: if ``add_efpn_config`` was not called.
    """
    sgdm, efpn_bs = require_node(cfg, "MODEL.SGDM"), require_node(cfg, "MODEL.EFPN_BS")
    inserted = sgdm.AFTER_STAGES or sgdm.ON_LEVELS or efpn_bs.CEM_ENABLED or efpn_bs.FBSM_ENABLED
    return bool(inserted)


def check_extended(cfg: CfgNode, key: str, parts: Iterable[str]) -> None:
    """Check that a detector's parts are not Detectron2's own, which would ignore an option.

    Args:
        cfg: a config.
        key: key of the option, for the message.
        parts: ``PROPOSAL_GENERATOR`` and ``ROI_HEADS`` of a two-stage detector; for RetinaNet, the
            meta-architecture is checked instead.

    Raises:
        ValueError: if one is; the message names its replacement.
    """
    architecture = cfg.MODEL.META_ARCHITECTURE
    if "RetinaNet" in architecture:
        named = {"MODEL.META_ARCHITECTURE": architecture}
    else:
        # A proposal network has no ROI heads, whatever the name in the config.
        parts = [x for x in parts if (x, architecture) != ("ROI_HEADS", "ProposalNetwork")]
        named = {f"MODEL.{x}.NAME": cfg.MODEL[x].NAME for x in parts}
    for place, name in named.items():
        if name in EXTENDED[place]:
            raise ValueError(
                f"{key} is {_value(cfg, key)}, but it is ignored by {place} {name}: set {place} to "
                f"{EXTENDED[place][name]}."
            )


def _value(cfg: CfgNode, key: str) -> object:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _check_enhancement(cfg: CfgNode) -> None:
    name = cfg.MODEL.BACKBONE.NAME
    if name in ENHANCED_BUILDERS and is_enhanced(cfg):
        raise ValueError(
            "The config inserts modules into the backbone, but they are ignored by "
            f"MODEL.BACKBONE.NAME {name}: set it to {ENHANCED_BUILDERS[name]}."
        )


def _check_mask_loss(cfg: CfgNode) -> None:
    key = "MODEL.EFPN_BS.FBSM_MASK_LOSS_WEIGHT"
    node = require_node(cfg, "MODEL.EFPN_BS")
    weight, name = node.FBSM_MASK_LOSS_WEIGHT, cfg.MODEL.META_ARCHITECTURE
    if weight == 0:
        return
    if not weight > 0:
        raise ValueError(f"{key} is {weight}: use 0.0 for no loss, or a positive weight.")
    if not node.FBSM_ENABLED:
        raise ValueError(
            f"{key} is {weight}, but MODEL.EFPN_BS.FBSM_ENABLED is False, so there are no masks: "
            "set it True, or the weight to 0.0."
        )
    if name in MASK_LOSS_ARCHITECTURES:
        own = MASK_LOSS_ARCHITECTURES[name]
        remedy = f"MODEL.META_ARCHITECTURE to {own}" if own else "the weight to 0.0"
        raise ValueError(
            f"{key} is {weight}, but it is ignored by MODEL.META_ARCHITECTURE {name}: set {remedy}."
        )


def _check_similarity(cfg: CfgNode) -> None:
    key, similarity = "MODEL.EFPN.SIMILARITY", require_node(cfg, "MODEL.EFPN").SIMILARITY
    if similarity == "iou":
        return
    generator = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    if generator == "PrecomputedProposals" and "RetinaNet" not in cfg.MODEL.META_ARCHITECTURE:
        raise ValueError(
            f"{key} is {similarity}, but MODEL.PROPOSAL_GENERATOR.NAME is {generator}, which does "
            f"not assign labels to anchors: set it to EFPNRPN, or {key} to iou."
        )
    check_extended(cfg, key, ["PROPOSAL_GENERATOR"])
