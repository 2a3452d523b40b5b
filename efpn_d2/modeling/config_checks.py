"""Checks that no option of a config is lost on a part that does not know it.

Every builder of this package makes them, and every command. A detector of Detectron2's own parts
alone, built without a command, reads nothing of this package, so nothing can speak for it there.
"""

from collections.abc import Iterable

from detectron2.config import CfgNode

from efpn_d2.config import require_node
from efpn_d2.modeling.stages import check_stage
from efpn_d2.modeling.stock_names import ENHANCED_BUILDERS, EXTENDED, MASK_LOSS_ARCHITECTURES


def check_config(cfg: CfgNode) -> None:
    """Check that the parts that ``cfg`` names know all that it switches on.

    That is the stage, what is inserted into the backbone (CEM, FBSM, SGDM), the loss of FBSM's
    masks, DCLoss and the similarity that anchors are assigned by.

    Args:
        cfg: a config.

    Raises:
        ValueError: a part is Detectron2's own, which would ignore an option, or has no counterpart
            that knows it; the message names key, value and what to use. Or the weight of the masks'
            loss is negative, or there are no masks.
        StageError: see :func:`check_stage`.
        KeyError: ``add_efpn_config`` was not called.
    """
    check_stage(cfg)
    _check_enhancement(cfg)
    _check_mask_loss(cfg)
    if require_node(cfg, "MODEL.EFPN_BS").DCLOSS_ENABLED:
        check_extended(cfg, "MODEL.EFPN_BS.DCLOSS_ENABLED", ["PROPOSAL_GENERATOR", "ROI_HEADS"])
    _check_similarity(cfg)


def is_enhanced(cfg: CfgNode) -> bool:
    """Whether ``cfg`` inserts anything into the backbone, after stages or on levels.

    Raises:
        KeyError: ``add_efpn_config`` was not called.
    """
    sgdm, efpn_bs = require_node(cfg, "MODEL.SGDM"), require_node(cfg, "MODEL.EFPN_BS")
    inserted = sgdm.AFTER_STAGES or sgdm.ON_LEVELS or efpn_bs.CEM_ENABLED or efpn_bs.FBSM_ENABLED
    return bool(inserted)


def check_extended(cfg: CfgNode, key: str, parts: Iterable[str]) -> None:
    """Check that a detector's parts are not Detectron2's own, which would ignore a key of ours.

    Args:
        cfg: a config.
        key: of it, for the message.
        parts: of a two-stage detector, ``PROPOSAL_GENERATOR`` and ``ROI_HEADS``; a RetinaNet has
            one part only, itself.

    Raises:
        ValueError: one is; the message names what to use in its place.
    """
    architecture = cfg.MODEL.META_ARCHITECTURE
    if "RetinaNet" in architecture:
        named = {"MODEL.META_ARCHITECTURE": architecture}
    else:
        # A network of proposals alone has no ROI heads, whatever their name is.
        parts = [x for x in parts if (x, architecture) != ("ROI_HEADS", "ProposalNetwork")]
        named = {f"MODEL.{x}.NAME": cfg.MODEL[x].NAME for x in parts}
    for place, name in named.items():
        if name in EXTENDED[place]:
            raise ValueError(
                f"{key} is {_value(cfg, key)}, but {place} is {name}, which does not know it: set "
                f"it to {EXTENDED[place][name]}."
            )


def _value(cfg: CfgNode, key: str) -> object:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _check_enhancement(cfg: CfgNode) -> None:
    name = cfg.MODEL.BACKBONE.NAME
    if name in ENHANCED_BUILDERS and is_enhanced(cfg):
        raise ValueError(
            "The config inserts blocks into the backbone, but MODEL.BACKBONE.NAME is "
            f"{name}, which does not know them: set it to {ENHANCED_BUILDERS[name]}."
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
            f"{key} is {weight}, but MODEL.EFPN_BS.FBSM_ENABLED is False, so there is no mask: "
            "switch it on, or set the weight to 0.0."
        )
    if name in MASK_LOSS_ARCHITECTURES:
        raise ValueError(
            f"{key} is {weight}, but MODEL.META_ARCHITECTURE is {name}, which does not know it: "
            f"set it to {MASK_LOSS_ARCHITECTURES[name]}."
        )


def _check_similarity(cfg: CfgNode) -> None:
    key, similarity = "MODEL.EFPN.SIMILARITY", require_node(cfg, "MODEL.EFPN").SIMILARITY
    if similarity == "iou":
        return
    generator = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    if generator == "PrecomputedProposals" and "RetinaNet" not in cfg.MODEL.META_ARCHITECTURE:
        raise ValueError(
            f"{key} is {similarity}, but MODEL.PROPOSAL_GENERATOR.NAME is {generator}, which "
            f"labels no anchors: set it to EFPNRPN, or {key} to iou."
        )
    check_extended(cfg, key, ["PROPOSAL_GENERATOR"])
