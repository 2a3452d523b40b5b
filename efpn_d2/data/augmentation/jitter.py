"""Colour and scale jitter, from Detectron2's own augmentations."""

from detectron2.config import CfgNode
from detectron2.data import transforms as T


def color_jitter(strength: float, key: str = "DATA.COLOR_JITTER") -> list[T.Augmentation]:
    """Brightness, contrast and saturation, each multiplied by 1 - strength to 1 + strength.

    Args:
        strength: from 0, which is none, to below 1.
        key: of the config, for the error.

    Raises:
        ValueError: the strength is out of this range.
    """
    if strength == 0:
        return []
    if not 0 < strength < 1:
        raise ValueError(f"{key} is {strength}: use a number from 0 to below 1.")
    low, high = 1 - strength, 1 + strength
    return [
        T.RandomBrightness(low, high),
        T.RandomContrast(low, high),
        T.RandomSaturation(low, high),
    ]


def with_scale_jitter(cfg: CfgNode) -> CfgNode:
    """A config whose training images have their size multiplied as ``DATA.SCALE_JITTER`` says.

    The factor is drawn anew for each image, between the two numbers: Detectron2's resizing draws
    the shorter side from a range. ``INPUT.MAX_SIZE_TRAIN`` grows with the larger factor.

    Raises:
        ValueError: there are not two factors in their order, or the images are not resized.
    """
    factors = cfg.DATA.SCALE_JITTER
    if not factors:
        return cfg
    if len(factors) != 2 or not 0 < factors[0] <= factors[1]:
        raise ValueError(
            f"DATA.SCALE_JITTER is {factors}: use [smallest factor, largest factor], both above 0."
        )
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    sizes = (sizes,) if isinstance(sizes, int) else sizes
    if min(sizes) <= 0:
        raise ValueError("DATA.SCALE_JITTER needs INPUT.MIN_SIZE_TRAIN, which it multiplies.")
    low, high = factors
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TRAIN = (round(low * min(sizes)), round(high * max(sizes)))
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "range"
    cfg.INPUT.MAX_SIZE_TRAIN = round(max(high, 1) * cfg.INPUT.MAX_SIZE_TRAIN)
    return cfg
