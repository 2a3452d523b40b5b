"""A data set of a few small images, and detectors small enough to train on it in a test."""

import json
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from PIL import Image

from efpn_d2 import get_config

NUM_IMAGES = 7


def write_coco(folder: Path) -> tuple[str, str]:
    """Write images of both orientations with 1 to 4 rectangles each; returns (JSON, folder)."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for i in range(NUM_IMAGES):
        width, height = (96, 64) if i % 3 else (64, 80)
        pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
        for _ in range(1 + i % 4):
            w, h = rng.integers(6, 30, 2).tolist()
            x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
            category = int(rng.integers(1, 3))
            pixels[y : y + h, x : x + w, category] = 250
            annotation = {"id": len(annotations) + 1, "image_id": i, "category_id": category}
            annotation |= {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotations.append(annotation)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
    categories = [{"id": 1, "name": "green"}, {"id": 2, "name": "blue"}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(coco))
    return str(folder / "annotations.json"), str(folder / "images")


def register(name: str, folder: Path) -> None:
    """Write and register the data set; undo with :func:`unregister`."""
    register_coco_instances(name, {}, *write_coco(folder))


def unregister(name: str) -> None:
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


# The opts of a tiny detector, also for the command line. Everything random is on.
TINY_OPTS = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "SEED", "5"),
    *("MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"),
    *("MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.FPN.OUT_CHANNELS", "16"),
    *("MODEL.ROI_HEADS.NUM_CLASSES", "2", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "16"),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", "60", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "30"),
    *("MODEL.RPN.PRE_NMS_TOPK_TEST", "30", "MODEL.RPN.POST_NMS_TOPK_TEST", "10"),
    *("MODEL.ANCHOR_GENERATOR.SIZES", "[[8],[16],[32],[64],[128]]"),
    *("MODEL.EFPN.SMALL_BOX_SIZE", "16.0"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,80)", "INPUT.MIN_SIZE_TEST", "64", "INPUT.CROP.ENABLED", "True"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.BASE_LR", "0.002", "SOLVER.WARMUP_ITERS", "2"),
    *("DATALOADER.NUM_WORKERS", "0", "TEST.EVAL_PERIOD", "0", "EVALUATION.SIZE_BINS", "[0,16]"),
]

# With AMX, torch 2.14.1 computes strided bf16 convolutions wrong whose output is one cell wide, and
# that is the last stage's on 32 px.
WIDE_ENOUGH_FOR_BF16 = ["INPUT.MIN_SIZE_TRAIN", "(40,)", "INPUT.MIN_SIZE_TEST", 40]

STOCK_OPTS = [
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
    *("MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.PROPOSAL_GENERATOR.NAME", "RPN"),
]


def tiny_config(dataset: str, output_dir: Path, *opts: object) -> CfgNode:
    """A tiny EFPN Faster R-CNN; with ``*STOCK_OPTS`` the FPN it extends."""
    cfg = get_config("Base-RCNN-EFPN.yaml")
    cfg.merge_from_list(TINY_OPTS)
    cfg.merge_from_list(list(opts))
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (dataset,)
    cfg.OUTPUT_DIR = str(output_dir)
    return cfg
