"""Color and scale jitter, built on Detectron2's augmentations."""

from detectron2.config import CfgNode
from detectron2.data import transforms as T


def color_jitter(strength: float, key: str = "DATA.COLOR_JITTER") -> list[T.Augmentation]:
    """Build augmentations that jitter brightness, contrast and saturation.

    Args:
        strength: factors are drawn from 1 - strength to 1 + strength; in [0, 1), 0 disables jitter.
        key: config key to name in the error message.

    Raises:
        ValueError: if the strength is out of range.
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
    """Return a config whose training image size is multiplied according to ``DATA.SCALE_JITTER``.

    The factor is drawn for each image: Detectron2's resizing draws the shorter side from a range.
    ``INPUT.MAX_SIZE_TRAIN`` is multiplied by the larger factor.

    Raises:
        ValueError: if the value is not two ascending factors, or the images are not resized.
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
