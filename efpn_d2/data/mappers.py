"""What is loaded for distillation: one augmented image per sample, at the teacher's scale."""

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T

__all__ = ["build_distillation_mapper"]


def build_distillation_mapper(cfg: CfgNode) -> DatasetMapper:
    """Detectron2's mapper with the scale that ``DISTILL.VIEW`` asks for, and colour jitter.

    With ``downsample`` all lengths of ``INPUT``, which are the student's, are doubled: the sample
    is the teacher's view, and the student's is made of it in the model, so that the two are
    aligned.
    """
    if cfg.DISTILL.VIEW == "downsample":
        cfg = _at_twice_the_scale(cfg)
    options = DatasetMapper.from_config(cfg, is_train=True)
    options["augmentations"] = [*options["augmentations"], *_color_jitter(cfg.DISTILL.COLOR_JITTER)]
    return DatasetMapper(**options)


def _at_twice_the_scale(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TRAIN = tuple(2 * size for size in cfg.INPUT.MIN_SIZE_TRAIN)
    cfg.INPUT.MAX_SIZE_TRAIN = 2 * cfg.INPUT.MAX_SIZE_TRAIN
    if cfg.INPUT.CROP.ENABLED and cfg.INPUT.CROP.TYPE.startswith("absolute"):
        cfg.INPUT.CROP.SIZE = [2 * size for size in cfg.INPUT.CROP.SIZE]
    return cfg


def _color_jitter(strength: float) -> list[T.Augmentation]:
    if strength == 0:
        return []
    if not 0 < strength < 1:
        raise ValueError(f"DISTILL.COLOR_JITTER is {strength}: use a number from 0 to below 1.")
    low, high = 1 - strength, 1 + strength
    return [
        T.RandomBrightness(low, high),
        T.RandomContrast(low, high),
        T.RandomSaturation(low, high),
    ]
