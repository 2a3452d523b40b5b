"""Data sets in Detectron2's format, and small configs."""

import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import BoxMode

import efpn_d2


def make_record(boxes, *, height=100, width=120, name="a.png", mode=BoxMode.XYWH_ABS):
    annotations = [{"bbox": box, "bbox_mode": mode, "category_id": 0} for box in boxes]
    return {"file_name": name, "height": height, "width": width, "annotations": annotations}


def square_records(sizes, side=256, seed=0):
    """One image per size, with one square object of it anywhere."""
    rng = np.random.default_rng(seed)
    return [
        make_record([[*rng.uniform(0, side - s, 2), s, s]], height=side, width=side) for s in sizes
    ]


def analysis_config(*opts, name="COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml") -> CfgNode:
    """Images as they are, square anchors on P2 to P6."""
    cfg = efpn_d2.get_config(name)
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    cfg.merge_from_list(list(opts))
    return cfg
