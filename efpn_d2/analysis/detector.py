"""What a config's detector does with an object of a given size, asked of its own parts."""

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

from efpn_d2.analysis.anchors import AnchorLevel
from efpn_d2.modeling.config_checks import check_config
from efpn_d2.modeling.presets import get_preset
from efpn_d2.modeling.roi_heads.routing import is_small_box
from efpn_d2.modeling.roi_heads.small_head import SmallHeadMixin
from efpn_d2.modeling.stages import without_stage

P2_PRIME = "p2_prime"

# ``StandardROIHeads`` leaves these to ``ROIPooler``, whose defaults they are.
_CANONICAL_BOX_SIZE = 224
_CANONICAL_LEVEL = 4


class DetectorGeometry(NamedTuple):
    """Levels, anchors and thresholds of a detector."""

    anchors: list[AnchorLevel]  # from fine to coarse
    size_divisibility: int  # images are padded to multiples of it
    thresholds: tuple[float, float]  # IoU: background is below the first, objects from the second
    pooled: tuple[str, ...]  # levels that the stock heads read boxes from; none: no heads
    pooled_strides: tuple[int, ...]
    small_box_size: float | None  # boxes below it are read from P'2; None: there is no such head

    @property
    def read_levels(self) -> list[str]:
        """All levels that boxes are read from, fine to coarse; none for a dense detector."""
        return [*([P2_PRIME] if self.small_box_size else []), *self.pooled]

    def assign_levels(self, boxes: np.ndarray) -> np.ndarray:
        """Index into ``read_levels`` of the level that each box (R, 4) XYXY is read from: (R,)."""
        tensor = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        low, high = (int(np.log2(self.pooled_strides[i])) for i in (0, -1))
        levels = assign_boxes_to_levels(
            [Boxes(tensor)], low, high, _CANONICAL_BOX_SIZE, _CANONICAL_LEVEL
        )
        if self.small_box_size:
            levels = torch.where(is_small_box(tensor, self.small_box_size), 0, levels + 1)
        return levels.numpy()


def describe_detector(cfg: CfgNode) -> DetectorGeometry:
    """Build just as much of the detector as says where its anchors are and what its heads read.

    Args:
        cfg: a complete config.

    Raises:
        ValueError: the config has an error (see :func:`check_config`), or no horizontal anchors.
    """
    arch = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    if cfg.MODEL.ANCHOR_GENERATOR.NAME != "DefaultAnchorGenerator":
        raise ValueError(
            f"MODEL.ANCHOR_GENERATOR.NAME is {cfg.MODEL.ANCHOR_GENERATOR.NAME}: advice is given on "
            "the anchors of DefaultAnchorGenerator."
        )
    cfg = _by_iou(without_stage(cfg))
    check_config(cfg)
    with torch.device("meta"):  # shapes are all that is asked for
        backbone = build_backbone(cfg)
    shapes = backbone.output_shape()
    pooled: tuple[str, ...] = ()
    small: float | None = None
    if issubclass(arch, RetinaNet):
        names = list(cfg.MODEL.RETINANET.IN_FEATURES)
        generator = build_anchor_generator(cfg, [shapes[name] for name in names])
        thresholds = cfg.MODEL.RETINANET.IOU_THRESHOLDS
    else:
        parts = _proposal_generator(cfg).from_config(cfg, shapes)
        names, generator = list(parts["in_features"]), parts["anchor_generator"]
        thresholds = cfg.MODEL.RPN.IOU_THRESHOLDS
        pooled, small = tuple(cfg.MODEL.ROI_HEADS.IN_FEATURES), _small_box_size(cfg)
    return DetectorGeometry(
        anchors=anchor_levels(generator, names),
        size_divisibility=backbone.size_divisibility,
        thresholds=(min(thresholds), max(thresholds)),
        pooled=pooled,
        pooled_strides=tuple(shapes[name].stride for name in pooled),
        small_box_size=small,
    )


def _by_iou(cfg: CfgNode) -> CfgNode:
    """``cfg`` without another similarity, whose constants may be what an analysis is to find."""
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
    raise ValueError(
        f"MODEL.PROPOSAL_GENERATOR.NAME is {name}, which has no anchors to give advice on."
    )


def anchor_levels(
    generator: DefaultAnchorGenerator | nn.Module, names: list[str]
) -> list[AnchorLevel]:
    """What Detectron2's anchor generator makes, by the first two cells of each level."""
    cells = [torch.empty(1, 1, 1, 2)] * len(names)
    levels = []
    for name, boxes in zip(names, generator(cells), strict=True):
        first, second = boxes.tensor.double().numpy().reshape(2, -1, 4)
        levels.append(AnchorLevel(name, float(second[0, 0] - first[0, 0]), first))
    return levels


def _small_box_size(cfg: CfgNode) -> float | None:
    node = cfg.MODEL.EFPN
    if not issubclass(ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME), SmallHeadMixin):
        return None
    routing = get_preset(node.PRESET).routing if node.ROUTING == "auto" else node.ROUTING
    return None if routing == "none" else node.SMALL_BOX_SIZE
