"""Levels, anchors and thresholds of a config's detector, read from the modules that it builds."""

from typing import NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, PROPOSAL_GENERATOR_REGISTRY, build_backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator, build_anchor_generator
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.modeling.poolers import assign_boxes_to_levels
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY
from detectron2.structures import Boxes
from torch import nn

from efpn_d2.dataset_advice.anchors import AnchorLevel
from efpn_d2.modeling.config_checks import check_config
from efpn_d2.modeling.roi_heads.routing import BoxRouter, SizeRouter, build_box_router
from efpn_d2.modeling.roi_heads.small_head import SmallHeadMixin
from efpn_d2.modeling.stage_config import without_stage

P2_PRIME = "p2_prime"

# ``StandardROIHeads`` does not pass these to ``ROIPooler``, so they are its defaults.
_CANONICAL_BOX_SIZE = 224
_CANONICAL_LEVEL = 4


class DetectorGeometry(NamedTuple):
    """Levels, anchors and thresholds of a detector."""

    anchors: list[AnchorLevel]  # from fine to coarse
    size_divisibility: int  # images are padded to multiples of it
    thresholds: tuple[float, float]  # IoU: background below the first, foreground from the second
    pooled: tuple[str, ...]  # levels that the stock heads pool from; empty: no heads
    pooled_strides: tuple[int, ...]
    router: BoxRouter | None  # selects the boxes pooled from P'2; None: no such head

    @property
    def small_box_size(self) -> float | None:
        """Boxes below this size are pooled from P'2; None: no box is, or by another rule."""
        return self.router.small_box_size if isinstance(self.router, SizeRouter) else None

    @property
    def read_levels(self) -> list[str]:
        """All levels that boxes are pooled from, fine to coarse; empty for a dense detector."""
        return [*([P2_PRIME] if self.router is not None else []), *self.pooled]

    def assign_levels(self, boxes: np.ndarray) -> np.ndarray:
        """Assign boxes (R, 4) XYXY to levels and return indices (R,) into ``read_levels``."""
        tensor = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        low, high = (int(np.log2(self.pooled_strides[i])) for i in (0, -1))
        levels = assign_boxes_to_levels(
            [Boxes(tensor)], low, high, _CANONICAL_BOX_SIZE, _CANONICAL_LEVEL
        )
        if self.router is not None:
            levels = torch.where(self.router(tensor), 0, levels + 1)
        return levels.numpy()


def describe_detector(cfg: CfgNode) -> DetectorGeometry:
    """Build only the parts of the detector that determine its anchors and pooling levels.

    Args:
        cfg: a complete config.

    Raises:
        ValueError: if the config is invalid (see :func:`check_config`), or has no horizontal
            anchors.
    """
    arch = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    if cfg.MODEL.ANCHOR_GENERATOR.NAME != "DefaultAnchorGenerator":
        raise ValueError(
            f"MODEL.ANCHOR_GENERATOR.NAME is {cfg.MODEL.ANCHOR_GENERATOR.NAME}: only anchors of "
            "DefaultAnchorGenerator are supported."
        )
    cfg = _by_iou(without_stage(cfg))
    check_config(cfg)
    with torch.device("meta"):  # only shapes are needed
        backbone = build_backbone(cfg)
    shapes = backbone.output_shape()
    pooled: tuple[str, ...] = ()
    router: BoxRouter | None = None
    if issubclass(arch, RetinaNet):
        names = list(cfg.MODEL.RETINANET.IN_FEATURES)
        generator = build_anchor_generator(cfg, [shapes[name] for name in names])
        thresholds = cfg.MODEL.RETINANET.IOU_THRESHOLDS
    else:
        parts = _proposal_generator(cfg).from_config(cfg, shapes)
        names, generator = list(parts["in_features"]), parts["anchor_generator"]
        thresholds = cfg.MODEL.RPN.IOU_THRESHOLDS
        pooled, router = tuple(cfg.MODEL.ROI_HEADS.IN_FEATURES), _box_router(cfg)
    return DetectorGeometry(
        anchors=anchor_levels(generator, names),
        size_divisibility=backbone.size_divisibility,
        thresholds=(min(thresholds), max(thresholds)),
        pooled=pooled,
        pooled_strides=tuple(shapes[name].stride for name in pooled),
        router=router,
    )


def _by_iou(cfg: CfgNode) -> CfgNode:
    """Return ``cfg`` with IoU as similarity, since an analysis may have to find the constants."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.EFPN.SIMILARITY = "iou"
    cfg.MODEL.EFPN.SIMILARITY_CONSTANTS = cfg.MODEL.EFPN.SIMILARITY_THRESHOLDS = []
    return cfg


def _proposal_generator(cfg: CfgNode) -> type[RPN]:
    name = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    if name in PROPOSAL_GENERATOR_REGISTRY:
        kind = PROPOSAL_GENERATOR_REGISTRY.get(name)
        if issubclass(kind, RPN):
            return kind
    raise ValueError(f"MODEL.PROPOSAL_GENERATOR.NAME is {name}, which has no anchors to analyze.")


def anchor_levels(
    generator: DefaultAnchorGenerator | nn.Module, names: list[str]
) -> list[AnchorLevel]:
    """Read the anchors of Detectron2's anchor generator from the first two cells of each level."""
    cells = [torch.empty(1, 1, 1, 2)] * len(names)
    levels = []
    for name, boxes in zip(names, generator(cells), strict=True):
        first, second = boxes.tensor.double().numpy().reshape(2, -1, 4)
        levels.append(AnchorLevel(name, float(second[0, 0] - first[0, 0]), first))
    return levels


def _box_router(cfg: CfgNode) -> BoxRouter | None:
    if not issubclass(ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME), SmallHeadMixin):
        return None
    router = build_box_router(cfg)
    return None if router.mode == "none" else router
