"""Small models and inputs for the tests of the modeling package."""

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.structures import BitMasks, Boxes, Instances
from torch.nn import functional as F

import efpn_d2

# Height and width of an image. With AMX, torch 2.14.1 computes strided bf16 convolutions wrong
# whose output is one cell wide, and that is the one of P7 of RetinaNet below 129 px.
WIDE_ENOUGH_FOR_BF16 = (64, 160)


def tiny_config(name: str | None = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml") -> CfgNode:
    """A packaged config, ResNet-18 with batch normalisation, narrow everywhere, on the CPU.

    Args:
        name: of the packaged config; None: Detectron2's defaults plus this package's nodes.
    """
    if name is None:
        cfg = get_cfg()
        efpn_d2.add_efpn_config(cfg)
    else:
        cfg = efpn_d2.get_config(name)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.NUM_GROUPS = 1
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    narrow(cfg)
    return cfg


def narrow(cfg: CfgNode) -> None:
    """Few channels, classes and samples; leaves the kind of network alone."""
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 50
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 50


def with_teacher_image(inputs: list[dict]) -> list[dict]:
    """The inputs with the teacher's view, which is interpolated."""
    return [
        {**x, "teacher_image": F.interpolate(x["image"][None], scale_factor=2)[0]} for x in inputs
    ]


def training_input(
    boxes: list[list[float]], *, size: tuple[int, int] = (64, 96), seed: int = 0
) -> dict:
    """One image of random pixels with the given boxes (x1, y1, x2, y2), classes 0, 1, 2, 0, ..."""
    height, width = size
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.arange(len(boxes)) % 3
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    instances.gt_masks = BitMasks(masks)
    pixels = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) * 255
    return {"image": pixels, "instances": instances, "height": height, "width": width}


def without_gradient(model: torch.nn.Module) -> list[str]:
    """Names of the trainable parameters that the last backward pass did not reach."""
    return [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
