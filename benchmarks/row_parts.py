"""What the rows of the ablation are made of: protocols, stages and options."""

from dataclasses import dataclass, field
from typing import Any

VARIANTS = ("native1x", "native2x")


@dataclass(frozen=True)
class Protocol:
    """How large everything is; the iterations and learning rates are in the config file."""

    config: str
    student_size: int
    max_object_size: float
    train_images: int
    val_images: int
    size_bins: tuple[float, ...]
    """In student pixels."""


PROTOCOLS = {
    "tiny": Protocol(
        "Synthetic/ablation_tiny_R_18_EFPN.yaml", 64, 32.0, 2000, 500, (0.0, 8.0, 16.0)
    ),
    "small": Protocol(
        "Synthetic/ablation_small_R_18_EFPN.yaml", 96, 48.0, 2000, 500, (0.0, 8.0, 16.0, 32.0)
    ),
    "large": Protocol(
        "Synthetic/ablation_large_R_50_EFPN.yaml",
        320,
        160.0,
        10000,
        1000,
        (0.0, 8.0, 16.0, 32.0, 96.0),
    ),
}


@dataclass(frozen=True)
class Row:
    """One line of the results: what is trained, from where, or what is only evaluated."""

    title: str
    paper: str
    """Its counterpart there."""
    stages: tuple[tuple[str, str], ...] = ()
    """Each a stage and which part of the schedule it lasts (see :func:`lengths`); none: the weights
    of ``start`` are evaluated as the options say."""
    start: str = "base"
    """The row that it goes on from, which is trained once for all; "": new weights."""
    teacher: str = ""
    """The row whose weights are the teacher; "": the network itself. Its iterations do not count
    as the row's."""
    frozen_backbone: bool = False
    """Only RPN and heads are trained, to compare what maps contain; not of the same total."""
    scale: float = 1
    """Side of the images: 1 is the student's, 2 the teacher's."""
    train_scales: tuple[int, ...] = ()
    """Of which each image of a training gets one; none: ``scale`` alone."""
    options: dict[str, Any] = field(default_factory=dict)


# Options.
STOCK = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
}
ONLY_P3 = {
    **STOCK,
    "MODEL.META_ARCHITECTURE": "DistillationRCNN",  # keeps what is frozen in evaluation mode
    "MODEL.RPN.IN_FEATURES": ["p3"],
    "MODEL.ROI_HEADS.IN_FEATURES": ["p3"],
}
PROPOSE = {"MODEL.EFPN.RPN_ON_P2_PRIME": True}
MUTE = {"DISTILL.LOSS_WEIGHT": 0.0}
CEM = {"MODEL.EFPN_BS.CEM_ENABLED": True}
FBSM = {"MODEL.EFPN_BS.FBSM_ENABLED": True}
MASK_LOSS = {"MODEL.EFPN_BS.FBSM_MASK_LOSS_WEIGHT": 1.0}
DCLOSS = {"MODEL.EFPN_BS.DCLOSS_ENABLED": True}
SGDM = {"MODEL.SGDM.AFTER_STAGES": ["res2", "res3", "res4", "res5"]}

# Stages.
FPN = (("base", "all"),)
SCRATCH = (("finetune", "all"),)
RECIPE = (("distill", "distill"), ("head", "head"))
FINETUNE = (("finetune", "rest"),)
HEADS = (("finetune", "head"),)
