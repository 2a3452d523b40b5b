"""The rows compared at equal cost: FPN at several sides, slim P'2, and label assignment."""

from typing import Any

from row_parts import FPN, PROPOSE, SCRATCH, SGDM, STOCK, Row

# Sides of the image as multiples of the student's; each costs about 1.4 times the one before.
SCALES = (1.19, 1.41, 1.68, 2.0)

ADD_ON = (("add_on", "rest"),)
ADD_ON_FAST = (("add_on", "rest_fast"),)
FINETUNE_FAST = (("finetune", "rest_fast"),)
P2_PRIME_ALONE = ["p2_prime"]
SLIM = {**PROPOSE, **SGDM, "MODEL.EFPN.PRESET": "slim"}


# Sizes of anchors by tools/analyze_dataset.py for the tiny protocol's native1x training set. With
# P'2, whose size of 6 it keeps, the other levels are free for larger ones.
ANCHORS = {
    "fpn": {"MODEL.ANCHOR_GENERATOR.SIZES": [[7], [16], [27], [46], [77]]},
    "slim": {"MODEL.ANCHOR_GENERATOR.SIZES": [[12], [24], [38], [54], [77]]},
}
R_50 = {"MODEL.RESNETS.DEPTH": 50, "MODEL.RESNETS.RES2_OUT_CHANNELS": 256}  # bottleneck blocks

# MODEL.EFPN.SIMILARITY_CONSTANTS of the tiny protocol's native1x training set of 2000 images and
# 10051 objects, by efpn_d2.analysis.similarity at 64 px: the objects' mean size for NWD, and for
# SimD m and n, which depend on the anchors: those of FPN, and those with P'2.
NWD_CONSTANTS = [12.933]
SIMD_CONSTANTS = {"fpn": [1.197, 1.142], "slim": [1.285, 1.223]}


def _fpn_by(title: str, paper: str, similarity: str, constants: list[float]) -> Row:
    """Stock FPN whose RPN assigns anchors by a similarity."""
    options = {
        "MODEL.EFPN.SIMILARITY": similarity,
        "MODEL.EFPN.SIMILARITY_CONSTANTS": constants,
    }
    return Row(title, paper, FPN, start="", options=options)


def _fpn_sgdm(title: str, changed: dict[str, Any] | None = None, scale: float = 1) -> Row:
    """FPN + SGDM from the start, with some options changed."""
    return Row(title, "ours", FPN, start="", scale=scale, options={**SGDM, **(changed or {})})


def _slim(title: str, changed: dict[str, Any] | None = None, **options: object) -> Row:
    """EFPN slim from the start with some options changed; ``options`` are of ``MODEL.EFPN``."""
    own = {f"MODEL.EFPN.{key}": value for key, value in options.items()}
    return Row(title, "ours", SCRATCH, start="", options={**SLIM, **(changed or {}), **own})


EQUAL_COST_ROWS = {
    **{
        f"fpn_{scale}x": Row(f"FPN at {scale} times the side", "", FPN, start="", scale=scale)
        for scale in SCALES[:-1]
    },
    "fpn_1x_at_2x": Row(
        "FPN trained at 1x, tested at 2x", "", start="fpn_1x", scale=2, options=STOCK
    ),
    "fpn_1x_slices": Row(
        "FPN trained at 1x, tested on the image and 2 x 2 slices",
        "",
        start="fpn_1x",
        options={**STOCK, "MODEL.META_ARCHITECTURE": "SlicedRCNN"},
    ),
    **{
        f"fpn_sgdm_{scale:g}x": _fpn_sgdm(f"FPN + SGDM at {scale:g} times the side", scale=scale)
        for scale in SCALES
    },
    "fpn_sgdm_r_50": _fpn_sgdm("FPN + SGDM, ResNet-50", R_50),
    "fpn_sgdm_anchors": _fpn_sgdm(
        "FPN + SGDM, anchors by the analysis of the data", ANCHORS["fpn"]
    ),
    "fpn_nwd": _fpn_by("FPN, anchors assigned by NWD", "NWD", "nwd", NWD_CONSTANTS),
    "fpn_simd": _fpn_by("FPN, anchors assigned by SimD", "SimD", "simd", SIMD_CONSTANTS["fpn"]),
    "slim": _slim("EFPN slim: from the start, SGDM, P'2 in the RPN"),
    "slim_without_sgdm": _slim("the same without SGDM", {"MODEL.SGDM.AFTER_STAGES": []}),
    "slim_r_50": _slim("the same, ResNet-50", R_50),
    "slim_anchors": _slim("the same, anchors by the analysis of the data", ANCHORS["slim"]),
    "slim_p2_prime": _slim(
        "the same, small heads that read P'2 alone", SMALL_IN_FEATURES=P2_PRIME_ALONE
    ),
    "slim_p2_prime_quarter": _slim(
        "the same, small heads that read P'2 alone, of a quarter of FPN's channels",
        SMALL_IN_FEATURES=P2_PRIME_ALONE,
        P2_PRIME_CHANNELS=16,
    ),
    "slim_bn": _slim("the same, batch normalisation in the extension", NORM="BN"),
    "slim_half": _slim("the same, half of FPN's channels", P2_PRIME_CHANNELS=32),
    "slim_c2_prime": _slim(
        "the same, texture from C'2, small heads that read P'2 alone", TEXTURE="c2_prime"
    ),
    "slim_without_texture": _slim(
        "the same without texture, small heads that read P'2 alone", TEXTURE="none"
    ),
    "slim_nearest": _slim("the same, nearest up-sampling instead of FTT", UPSAMPLER="nearest"),
    "slim_nwd": _slim(
        "the same, anchors assigned by NWD", SIMILARITY="nwd", SIMILARITY_CONSTANTS=NWD_CONSTANTS
    ),
    "slim_simd": _slim(
        "the same, anchors assigned by SimD",
        SIMILARITY="simd",
        SIMILARITY_CONSTANTS=SIMD_CONSTANTS["slim"],
    ),
    "slim_finetuned": Row(
        "EFPN slim finetuned from the base, all weights",
        "ours",
        FINETUNE_FAST,
        options=SLIM,
    ),
    "slim_add_on": Row(
        "EFPN slim added to the base, which stays as it is",
        "ours",
        ADD_ON_FAST,
        options={**PROPOSE, "MODEL.EFPN.PRESET": "slim"},
    ),
    "paper_add_on": Row("EFPN paper added to the base, which stays as it is", "ours", ADD_ON),
}
