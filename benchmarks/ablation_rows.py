"""The rows of the ablation, what each is compared with in the paper, and their configs."""

from dataclasses import dataclass, field
from typing import Any

from detectron2.config import CfgNode

import efpn_d2

__all__ = ["PROTOCOLS", "ROWS", "VARIANTS", "Protocol", "Row", "base_config", "row_config"]

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
    "small": Protocol(
        "Synthetic/ablation_small_R_18_EFPN.yaml", 96, 48.0, 2000, 500, (0.0, 8.0, 16.0, 32.0)
    ),
}


@dataclass(frozen=True)
class Row:
    """One line of the results: what is trained, from where, or what is only evaluated."""

    title: str
    paper: str
    """Its counterpart there."""
    stages: tuple[str, ...] = ()
    """After ``start``; none: the weights of ``start`` are evaluated as the options say."""
    start: str = "base"
    """"base", shared by all rows; another row; or "" for new weights."""
    scale: int = 1
    """Side of the images: 1 is the student's, 2 the teacher's."""
    options: dict[str, Any] = field(default_factory=dict)


_STOCK = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
}
_ONLY_P3 = {
    **_STOCK,
    "MODEL.RPN.IN_FEATURES": ["p3"],
    "MODEL.ROI_HEADS.IN_FEATURES": ["p3"],
}
_DISTILL = ("distill", "head")

ROWS = {
    "fpn_1x": Row("FPN 1x, all iterations", "Table III", ("base",), start=""),
    "fpn_2x": Row("FPN trained and tested at 2x, all iterations", "", ("base",), start="", scale=2),
    "teacher_2x": Row("FPN 1x tested at 2x: the teacher", "Table III", scale=2, options=_STOCK),
    "teacher_p2": Row(
        "FPN 1x + teacher's P2 as fifth level",
        "Table III, upper bound",
        options={"MODEL.BACKBONE.NAME": "build_teacher_p2_backbone"},
    ),
    "efpn_without_distillation": Row("EFPN without distillation", "", ("finetune",)),
    "efpn": Row("EFPN", "Tables II, III, VIII, IX", _DISTILL),
    "espcn_without_distillation": Row(
        "+ extended level with ESPCN, no distillation",
        "Table II",
        ("finetune",),
        options={"MODEL.EFPN.UPSAMPLER": "espcn"},
    ),
    "espcn": Row(
        "+ distillation (ESPCN)",
        "Tables II, IV",
        _DISTILL,
        options={"MODEL.EFPN.UPSAMPLER": "espcn"},
    ),
    "nearest": Row(
        "nearest instead of FTT",
        "Table III, w/o FTT",
        _DISTILL,
        options={"MODEL.EFPN.UPSAMPLER": "nearest"},
    ),
    "p2_only_global": Row(
        "loss on P'2 only, global",
        "Table IV",
        _DISTILL,
        options={"DISTILL.LEVELS": ["p2_prime"], "DISTILL.POSITIVE_WEIGHT": 0.0},
    ),
    "p2_only_balanced": Row(
        "loss on P'2 only, balanced", "Table IV", _DISTILL, options={"DISTILL.LEVELS": ["p2_prime"]}
    ),
    "lambda_0.5": Row("lambda 0.5", "IV-B3", _DISTILL, options={"DISTILL.POSITIVE_WEIGHT": 0.5}),
    "lambda_1.5": Row("lambda 1.5", "IV-B3", _DISTILL, options={"DISTILL.POSITIVE_WEIGHT": 1.5}),
    "efpn_unfrozen_extension": Row(
        "EFPN, extension trained in the head stage too",
        "the authors' code",
        _DISTILL,
        options={"DISTILL.UNFREEZE_EXTENSION": True},
    ),
    "p3_1x": Row("detecting on merged3 of 1x", "Table V", options=_ONLY_P3),
    "p3_2x": Row("detecting on merged3 of 2x", "Table V", scale=2, options=_ONLY_P3),
    "p3_prime": Row(
        "detecting on P'3",
        "Table V",
        start="efpn",
        options={**_ONLY_P3, "MODEL.BACKBONE.NAME": "build_p3_prime_backbone"},
    ),
}


def base_config(protocol: Protocol, variant: str, seed: int) -> CfgNode:
    """What all rows of a variant and seed have in common; its schedule is that of EFPN."""
    cfg = efpn_d2.get_config(protocol.config)
    cfg.SEED = seed
    cfg.DATASETS.TRAIN = (f"synthetic_signs_{variant}_train",)
    cfg.DATASETS.TEST = (f"synthetic_signs_{variant}_val",)
    # Annotations are in pixels of the files, the bins in pixels of the student.
    factor = pixels_per_student_pixel(variant)
    cfg.EVALUATION.SIZE_BINS = [edge * factor for edge in protocol.size_bins]
    cfg.DISTILL.VIEW = "upsample" if variant == "native1x" else "downsample"
    return cfg


def pixels_per_student_pixel(variant: str) -> int:
    """Of the files of a variant."""
    return 2 if variant == "native2x" else 1


def row_config(
    row: Row, protocol: Protocol, variant: str, seed: int, starts: dict[str, str]
) -> CfgNode:
    """What a row trains after its start, or evaluates if its schedule is empty.

    Args:
        row: the row.
        protocol, variant, seed: see :func:`base_config`.
        starts: path of the final weights of "base" and of each row that rows start from.
    """
    cfg = base_config(protocol, variant, seed)
    base, *rest = cfg.DISTILL.SCHEDULE
    cfg.DISTILL.SCHEDULE = _schedule(row, base, rest)
    cfg.MODEL.WEIGHTS = starts[row.start] if row.start else ""
    scale = row.scale
    if row.options.get("MODEL.BACKBONE.NAME") == "build_teacher_p2_backbone":
        # It makes the student's image itself, of the teacher's where that has more detail.
        scale = _use_images_of_the_teacher(cfg) if variant == "native2x" else 1
    cfg.INPUT.MIN_SIZE_TRAIN = tuple(scale * size for size in cfg.INPUT.MIN_SIZE_TRAIN)
    cfg.INPUT.MIN_SIZE_TEST *= scale
    for key, value in row.options.items():
        cfg.merge_from_list([key, value])
    if cfg.MODEL.RPN.IN_FEATURES == ["p3"]:
        _, p3, *_ = cfg.MODEL.ANCHOR_GENERATOR.SIZES
        # P'3 has the stride of P2, on which an object looks as it does on P3 of the 2x image.
        halve = row.options["MODEL.BACKBONE.NAME"] == "build_p3_prime_backbone"
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[size / 2 if halve else size for size in p3]]
    return cfg


def _schedule(row: Row, base: list[Any], rest: list[list[Any]]) -> list[list[Any]]:
    """The same total for every row: all at once, one stage after the base, or one each."""
    after = sum(iterations for _, iterations, _ in rest)
    if not row.stages:
        return []
    if row.start == "":
        return [[row.stages[0], base[1] + after, base[2]]]
    if len(row.stages) == 1:
        return [[row.stages[0], after, rest[-1][2]]]
    pairs = zip(row.stages, rest, strict=True)
    return [[stage, iterations, rate] for stage, (_, iterations, rate) in pairs]


def _use_images_of_the_teacher(cfg: CfgNode) -> int:
    """All lengths in pixels of the images, which have twice the student's side from now on."""
    sizes = cfg.MODEL.ANCHOR_GENERATOR.SIZES
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[2 * size for size in level] for level in sizes]
    cfg.MODEL.EFPN.SMALL_BOX_SIZE *= 2
    cfg.MODEL.EFPN.P2_PRIME_ANCHOR_SIZES = [2 * x for x in cfg.MODEL.EFPN.P2_PRIME_ANCHOR_SIZES]
    return 2
