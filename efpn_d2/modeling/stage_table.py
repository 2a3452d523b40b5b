"""Training stages that ``DISTILL.STAGE`` selects [paper IV-A3].

All properties of a stage are in its row of :data:`STAGES`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from detectron2.config import CfgNode

_EXTENSION, _SMALL_HEADS = "backbone.extension.", "roi_heads.small_"
SMALL_RPN_HEAD = "proposal_generator.rpn_head.small_"
_UPSAMPLER = "backbone.extension.upsampler."
_DETECTOR = (
    "backbone.bottom_up.",
    "backbone.fpn_",
    "proposal_generator.",
    "roi_heads.box_",
    "roi_heads.mask_",
    "roi_heads.keypoint_",
)
_OF_EQ_5 = ("LEVELS", "POSITIVE_WEIGHT", "LOSS_WEIGHT", "VIEW", "TEACHER_WEIGHTS", "COLOR_JITTER")


class StageError(ValueError):
    """A stage that cannot be trained as configured; the message says what to do."""


@dataclass(frozen=True)
class Stage:
    """A training stage; the defaults train the configured detector unchanged."""

    detects: bool = True
    """Whether it uses the detector's losses."""
    distills: bool = False
    """Whether it uses Eq. 5, which compares P'3 and P'2 with a teacher's features."""
    trained: Callable[[CfgNode], tuple[str, ...]] | None = None
    """Return the prefixes of the trained parameters; None: all are trained."""
    roi_heads: tuple[str, str] | None = None
    """The supported ``MODEL.ROI_HEADS.NAME``, and the one that replaces it in training."""
    stock: bool = False
    """Whether a schedule trains the stock detector in this stage."""
    starts_from: str = ""
    """The stage whose output it needs as ``MODEL.WEIGHTS``; empty: any weights."""
    needs: tuple[str, ...] = ()
    """Prefixes of the weights that this output must contain."""
    options: tuple[str, ...] = ()
    """Keys of ``DISTILL`` that it reads and some other stages ignore."""

    @property
    def is_plain(self) -> bool:
        """Whether the configured detector is trained unchanged, with or without P'2."""
        return self.trained is None and self.detects and not self.distills


def _trained_by_eq_5(cfg: CfgNode) -> tuple[str, ...]:
    # Eq. 5 on P'3 alone has no gradient for the modules after it.
    return (_EXTENSION if "p2_prime" in cfg.DISTILL.LEVELS else _UPSAMPLER,)


def _trained_by_head(cfg: CfgNode) -> tuple[str, ...]:
    return (_SMALL_HEADS, _EXTENSION) if cfg.DISTILL.UNFREEZE_EXTENSION else (_SMALL_HEADS,)


def _trained_by_add_on(cfg: CfgNode) -> tuple[str, ...]:
    return (_EXTENSION, _SMALL_HEADS, SMALL_RPN_HEAD)


STAGES = {
    "": Stage(),
    "base": Stage(stock=True),
    "distill": Stage(
        detects=False,
        distills=True,
        trained=_trained_by_eq_5,
        starts_from="base",
        needs=_DETECTOR,
        options=_OF_EQ_5,
    ),
    "head": Stage(
        trained=_trained_by_head,
        roi_heads=("EFPNROIHeads", "OHEMSmallROIHeads"),
        starts_from="distill",
        needs=(*_DETECTOR, _EXTENSION),
        options=("OHEM_BATCH", "OHEM_POSITIVE_FRACTION", "UNFREEZE_EXTENSION"),
    ),
    "joint": Stage(distills=True, options=_OF_EQ_5),
    "finetune": Stage(),
    "add_on": Stage(
        trained=_trained_by_add_on,
        starts_from="base",
        # Modules inserted into the pyramid are not trained here, so the file must contain them.
        needs=(*_DETECTOR, "backbone.enhancement."),
    ),
}
"""The stages by name; the empty name is a training without stages."""


def get_stage(name: str) -> Stage:
    """Return the row of :data:`STAGES` of that name.

    Args:
        name: value of ``DISTILL.STAGE``.

    Raises:
        StageError: if it is unknown.
    """
    if name not in STAGES:
        raise StageError(
            f"DISTILL.STAGE is '{name}', which does not exist: use '' or one of "
            f"{', '.join(filter(None, STAGES))}."
        )
    return STAGES[name]
