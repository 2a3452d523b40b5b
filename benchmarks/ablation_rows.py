"""The rows of the ablation, what each is compared with in the paper, and their configs."""

from typing import Any

from detectron2.config import CfgNode
from equal_cost_rows import EQUAL_COST_ROWS
from row_parts import (
    CEM,
    DCLOSS,
    FBSM,
    FINETUNE,
    FPN,
    HEADS,
    MASK_LOSS,
    MUTE,
    ONLY_P3,
    PROPOSE,
    RECIPE,
    SCRATCH,
    SGDM,
    STOCK,
    Protocol,
    Row,
)

import efpn_d2

ROWS = {
    "base": Row("FPN 1x, the base of the rows below", "", (("base", "base"),), start=""),
    "fpn_1x": Row("FPN 1x, all iterations", "Table III", FPN, start=""),
    "fpn_2x": Row("FPN trained and tested at 2x, all iterations", "", FPN, start="", scale=2),
    "teacher_2x": Row("the base tested at 2x: the teacher", "Table III", scale=2, options=STOCK),
    "teacher_p2": Row(
        "the base + teacher's P2 as fifth level",
        "Table III, upper bound",
        options={"MODEL.BACKBONE.NAME": "build_teacher_p2_backbone"},
    ),
    "efpn": Row("EFPN, the paper's recipe: distill, head", "Tables II, III, VIII, IX", RECIPE),
    "head_alone": Row(
        "the same without its loss: the extension as it was initialised", "", RECIPE, options=MUTE
    ),
    "efpn_without_distillation": Row("EFPN finetuned without distillation", "", FINETUNE),
    "finetune_rpn": Row(
        "EFPN finetuned without distillation, P'2 in the RPN", "ours", FINETUNE, options=PROPOSE
    ),
    "finetune_rpn_small_anchors": Row(
        "EFPN finetuned without distillation, P'2 in the RPN with anchors of 4 px",
        "ours",
        FINETUNE,
        options={**PROPOSE, "MODEL.EFPN.P2_PRIME_ANCHOR_SIZES": [4]},
    ),
    "scratch_rpn": Row(
        "EFPN from the start, all iterations, P'2 in the RPN",
        "ours",
        SCRATCH,
        start="",
        options=PROPOSE,
    ),
    "scratch_rpn_espcn": Row(
        "the same, ESPCN instead of FTT",
        "ours",
        SCRATCH,
        start="",
        options={**PROPOSE, "MODEL.EFPN.UPSAMPLER": "espcn"},
    ),
    "joint_rpn": Row(
        "EFPN finetuned with distillation, P'2 in the RPN",
        "ours",
        (("joint", "rest"),),
        options=PROPOSE,
    ),
    "joint_rpn_other_teacher": Row(
        "the same, FPN 2x the teacher",
        "ours",
        (("joint", "rest"),),
        teacher="fpn_2x",
        options=PROPOSE,
    ),
    "fpn_2x_from_base": Row(
        "the base finetuned and tested at 2x: a teacher that knows the scale",
        "",
        (("base", "rest"),),
        scale=2,
    ),
    "efpn_other_teacher": Row(
        "EFPN, the paper's recipe, FPN 2x the teacher", "ours", RECIPE, teacher="fpn_2x"
    ),
    "efpn_tuned_teacher": Row(
        "EFPN, the paper's recipe, the base finetuned at 2x the teacher (not counted)",
        "ours",
        RECIPE,
        teacher="fpn_2x_from_base",
    ),
    "efpn_tuned_teacher_unfrozen": Row(
        "the same, extension trained in the head stage too",
        "ours",
        RECIPE,
        teacher="fpn_2x_from_base",
        options={"DISTILL.UNFREEZE_EXTENSION": True},
    ),
    "base_multi_scale": Row(
        "FPN 1x, a base trained at 1x and 2x",
        "",
        (("base", "base"),),
        start="",
        train_scales=(1, 2),
    ),
    "teacher_2x_multi_scale": Row(
        "the multi-scale base tested at 2x: its teacher",
        "",
        start="base_multi_scale",
        scale=2,
        options=STOCK,
    ),
    "teacher_p2_multi_scale": Row(
        "the multi-scale base + teacher's P2 as fifth level",
        "",
        start="base_multi_scale",
        options={"MODEL.BACKBONE.NAME": "build_teacher_p2_backbone"},
    ),
    "efpn_multi_scale": Row(
        "EFPN, the paper's recipe from the multi-scale base", "", RECIPE, start="base_multi_scale"
    ),
    "head_alone_multi_scale": Row(
        "the same without its loss: the extension as it was initialised",
        "",
        RECIPE,
        start="base_multi_scale",
        options=MUTE,
    ),
    "joint_rpn_multi_scale": Row(
        "EFPN finetuned with distillation from the multi-scale base, P'2 in the RPN",
        "ours",
        (("joint", "rest"),),
        start="base_multi_scale",
        options=PROPOSE,
    ),
    "finetune_rpn_multi_scale": Row(
        "the same without distillation",
        "ours",
        FINETUNE,
        start="base_multi_scale",
        options=PROPOSE,
    ),
    "espcn_without_distillation": Row(
        "+ extended level with ESPCN, no distillation",
        "Table II",
        FINETUNE,
        options={"MODEL.EFPN.UPSAMPLER": "espcn"},
    ),
    "espcn": Row(
        "+ distillation (ESPCN)",
        "Tables II, IV",
        RECIPE,
        options={"MODEL.EFPN.UPSAMPLER": "espcn"},
    ),
    "nearest": Row(
        "nearest instead of FTT",
        "Table III, w/o FTT",
        RECIPE,
        options={"MODEL.EFPN.UPSAMPLER": "nearest"},
    ),
    "p2_only_global": Row(
        "loss on P'2 only, global",
        "Table IV",
        RECIPE,
        options={"DISTILL.LEVELS": ["p2_prime"], "DISTILL.POSITIVE_WEIGHT": 0.0},
    ),
    "p2_only_balanced": Row(
        "loss on P'2 only, balanced", "Table IV", RECIPE, options={"DISTILL.LEVELS": ["p2_prime"]}
    ),
    "lambda_0.5": Row("lambda 0.5", "IV-B3", RECIPE, options={"DISTILL.POSITIVE_WEIGHT": 0.5}),
    "lambda_1.5": Row("lambda 1.5", "IV-B3", RECIPE, options={"DISTILL.POSITIVE_WEIGHT": 1.5}),
    "unfrozen_extension": Row(
        "EFPN, extension trained in the head stage too",
        "the authors' code",
        RECIPE,
        options={"DISTILL.UNFREEZE_EXTENSION": True},
    ),
    "p3_1x": Row(
        "detecting on merged3 of 1x", "Table V", HEADS, frozen_backbone=True, options=ONLY_P3
    ),
    "p3_2x": Row(
        "detecting on merged3 of 2x",
        "Table V",
        HEADS,
        scale=2,
        frozen_backbone=True,
        options=ONLY_P3,
    ),
    "p3_prime": Row(
        "detecting on P'3",
        "Table V",
        HEADS,
        start="efpn",
        frozen_backbone=True,
        options={**ONLY_P3, "MODEL.BACKBONE.NAME": "build_p3_prime_backbone"},
    ),
    "fpn_cem": Row("FPN + CEM", "E-FPN-BS", FPN, start="", options=CEM),
    "fpn_fbsm": Row("FPN + FBSM", "E-FPN-BS", FPN, start="", options=FBSM),
    "fpn_fbsm_supervised": Row(
        "FPN + FBSM, masks supervised", "ours", FPN, start="", options={**FBSM, **MASK_LOSS}
    ),
    "fpn_dcloss": Row("FPN + DCLoss", "E-FPN-BS", FPN, start="", options=DCLOSS),
    "fpn_bs": Row(
        "FPN + CEM + FBSM + DCLoss",
        "E-FPN-BS",
        FPN,
        start="",
        options={**CEM, **FBSM, **DCLOSS},
    ),
    "fpn_sgdm": Row("FPN + SGDM after all stages", "RDConv/SGDM", FPN, start="", options=SGDM),
    "scratch_rpn_sgdm": Row(
        "EFPN + SGDM after all stages",
        "ours",
        SCRATCH,
        start="",
        options={**PROPOSE, **SGDM},
    ),
    "scratch_rpn_all": Row(
        "EFPN + CEM + FBSM + DCLoss + SGDM",
        "ours",
        SCRATCH,
        start="",
        options={**PROPOSE, **CEM, **FBSM, **DCLOSS, **SGDM},
    ),
    **EQUAL_COST_ROWS,
}

# What can be inserted or balanced, each after the detector that it is compared with.
OPTION_ROWS = {
    "fpn_1x": ("fpn_cem", "fpn_fbsm", "fpn_fbsm_supervised", "fpn_dcloss", "fpn_bs", "fpn_sgdm"),
    "scratch_rpn": ("scratch_rpn_sgdm", "scratch_rpn_all"),
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
    row: Row, protocol: Protocol, variant: str, seed: int, weights: dict[str, str]
) -> CfgNode:
    """What a row trains after its start, or evaluates if its schedule is empty.

    Args:
        row: the row.
        protocol, variant, seed: see :func:`base_config`.
        weights: paths of the final weights of the rows that this one starts from or is taught by.
    """
    cfg = base_config(protocol, variant, seed)
    parts = lengths(cfg.DISTILL.SCHEDULE)
    cfg.DISTILL.SCHEDULE = [[stage, *parts[part]] for stage, part in row.stages]
    cfg.MODEL.WEIGHTS = weights[row.start] if row.start else ""
    cfg.DISTILL.TEACHER_WEIGHTS = weights[row.teacher] if row.teacher else ""
    scale = row.scale
    if row.options.get("MODEL.BACKBONE.NAME") == "build_teacher_p2_backbone":
        # It makes the student's image itself, of the teacher's where that has more detail.
        scale = _use_images_of_the_teacher(cfg) if variant == "native2x" else 1
    scales = row.train_scales or (scale,)
    sides = cfg.INPUT.MIN_SIZE_TRAIN
    cfg.INPUT.MIN_SIZE_TRAIN = tuple(round(x * side) for side in sides for x in scales)
    cfg.INPUT.MIN_SIZE_TEST = round(scale * cfg.INPUT.MIN_SIZE_TEST)
    for key, value in row.options.items():
        cfg.merge_from_list([key, value])
    if cfg.MODEL.RPN.IN_FEATURES == ["p3"]:
        _, p3, *_ = cfg.MODEL.ANCHOR_GENERATOR.SIZES
        # P'3 has the stride of P2, on which an object looks as it does on P3 of the 2x image.
        halve = row.options["MODEL.BACKBONE.NAME"] == "build_p3_prime_backbone"
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[size / 2 if halve else size for size in p3]]
    return cfg


def lengths(schedule: list[list[Any]]) -> dict[str, tuple[int, float]]:
    """Iterations and learning rate of the parts of a schedule that rows' stages last.

    "base", "distill" and "head" are its own; "rest" is all after the base, "all" is everything,
    and "rest_fast" is the rest at twice the base's rate, for parts that start at random.
    """
    parts = {stage: (iterations, rate) for stage, iterations, rate in schedule}
    rest = parts["distill"][0] + parts["head"][0]
    parts["rest"] = (rest, parts["head"][1])
    parts["rest_fast"] = (rest, 2 * parts["base"][1])
    parts["all"] = (parts["base"][0] + rest, parts["base"][1])
    return parts


def _use_images_of_the_teacher(cfg: CfgNode) -> int:
    """All lengths in pixels of the images, which have twice the student's side from now on."""
    sizes = cfg.MODEL.ANCHOR_GENERATOR.SIZES
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[2 * size for size in level] for level in sizes]
    cfg.MODEL.EFPN.SMALL_BOX_SIZE *= 2
    cfg.MODEL.EFPN.P2_PRIME_ANCHOR_SIZES = [2 * x for x in cfg.MODEL.EFPN.P2_PRIME_ANCHOR_SIZES]
    return 2
