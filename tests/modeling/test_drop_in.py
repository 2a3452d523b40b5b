"""Stock configs and stock checkpoints in an EFPN detector."""

import pickle

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model

import efpn_d2
from tests.modeling.helpers import tiny_config, training_input

pytestmark = pytest.mark.fast

CONFIGS = [
    "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml",
    "COCO-Detection/cascade_rcnn_R_50_EFPN_3x.yaml",
    "COCO-Detection/retinanet_R_50_EFPN_1x.yaml",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_EFPN_1x.yaml",
]
SLIM = ["MODEL.EFPN.PRESET", "slim", "MODEL.EFPN.RPN_ON_P2_PRIME", True]
NEW_KEYS = (
    "backbone.extension.",
    "roi_heads.small_",
    "proposal_generator.rpn_head.small_",
    "head.small_",
)


def stock_config(cfg: CfgNode) -> CfgNode:
    """The FPN config that ``cfg`` extends."""
    cfg = cfg.clone()
    cfg.MODEL.BACKBONE.NAME = cfg.MODEL.BACKBONE.NAME.replace("efpn", "fpn")
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    cfg.MODEL.ROI_HEADS.NAME = {
        "EFPNROIHeads": "StandardROIHeads",
        "EFPNCascadeROIHeads": "CascadeROIHeads",
    }.get(cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_HEADS.NAME)
    if cfg.MODEL.META_ARCHITECTURE == "EFPNRetinaNet":
        cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
        cfg.MODEL.RETINANET.IN_FEATURES = cfg.MODEL.RETINANET.IN_FEATURES[1:]
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = cfg.MODEL.ANCHOR_GENERATOR.SIZES[1:]
    return cfg


def stock_and_extended(name: str, options: list[object]) -> tuple[torch.nn.Module, torch.nn.Module]:
    cfg = tiny_config(name)
    cfg.merge_from_list(options)
    torch.manual_seed(0)
    return build_model(stock_config(cfg)), build_model(cfg)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("suffix", ["pth", "pkl"])
@pytest.mark.parametrize("options", [[], SLIM], ids=["paper", "slim"])
def test_a_stock_checkpoint_misses_only_the_new_keys(name, options, suffix, tmp_path):
    stock, extended = stock_and_extended(name, options)
    path = tmp_path / f"model.{suffix}"
    if suffix == "pth":
        torch.save({"model": stock.state_dict()}, path)
    else:
        # The format of the model zoo's files: numpy arrays, matched by the ends of their names.
        weights = {k: v.numpy() for k, v in stock.state_dict().items()}
        with path.open("wb") as f:
            pickle.dump({"model": weights, "__author__": "t", "matching_heuristics": True}, f)
    before = {k: v.clone() for k, v in extended.state_dict().items()}
    checkpointer = DetectionCheckpointer(extended)
    logged = []
    checkpointer._log_incompatible_keys = logged.append
    checkpointer.load(str(path))
    assert logged[0].unexpected_keys == []
    assert logged[0].missing_keys
    assert all(k.startswith(NEW_KEYS) for k in logged[0].missing_keys)
    for key, value in extended.state_dict().items():
        new = key.startswith(NEW_KEYS)
        assert torch.equal(value, before[key] if new else stock.state_dict()[key]), key


@pytest.mark.parametrize("options", [[], SLIM], ids=["paper", "slim"])
def test_a_caffe2_checkpoint_misses_only_the_new_keys(options, tmp_path):
    """Blob names as Caffe2's Detectron wrote them, converted by Detectron2's own heuristics."""
    stock, extended = stock_and_extended(CONFIGS[0], options)
    rng = np.random.default_rng(0)
    blobs, wanted = {}, {}
    for key, caffe2 in {
        "backbone.bottom_up.res2.0.conv1.weight": "res2_0_branch2a_w",
        "backbone.bottom_up.stem.conv1.weight": "conv1_w",
        "backbone.fpn_lateral2.weight": "fpn_inner_res2_1_sum_lateral_w",
        "backbone.fpn_output2.weight": "fpn_res2_1_sum_w",
        "proposal_generator.rpn_head.conv.weight": "conv_rpn_fpn2_w",
        "roi_heads.box_head.fc1.weight": "fc6_w",
        "roi_heads.box_head.fc2.weight": "fc7_w",
    }.items():
        value = rng.normal(size=tuple(stock.state_dict()[key].shape)).astype("float32")
        blobs[caffe2], wanted[key] = value, torch.from_numpy(value)
    path = tmp_path / "model.pkl"
    with path.open("wb") as f:
        pickle.dump({"blobs": blobs}, f)
    before = {k: v.clone() for k, v in extended.state_dict().items()}
    DetectionCheckpointer(extended).load(str(path))
    for key, value in wanted.items():
        assert torch.equal(extended.state_dict()[key], value), key
    for key, value in extended.state_dict().items():
        if key.startswith(NEW_KEYS):
            assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", [CONFIGS[0], CONFIGS[3]])
def test_without_routing_the_detector_is_the_stock_detector(name):
    cfg = tiny_config(name)
    cfg.MODEL.EFPN.ROUTING = "none"
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    torch.manual_seed(0)
    extended, stock = build_model(cfg).eval(), build_model(stock_config(cfg)).eval()
    stock.load_state_dict(
        {k: v for k, v in extended.state_dict().items() if not k.startswith(NEW_KEYS)}
    )
    inputs = [training_input([], size=(100, 70)), training_input([], seed=1)]
    with torch.no_grad():
        for ours, theirs in zip(extended(inputs), stock(inputs), strict=True):
            ours, theirs = ours["instances"], theirs["instances"]
            assert len(ours) > 0
            assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
            assert torch.equal(ours.scores, theirs.scores)
            assert torch.equal(ours.pred_classes, theirs.pred_classes)


def test_three_keys_turn_a_model_zoo_config_into_an_efpn():
    cfg = model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
    efpn_d2.add_efpn_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_resnet_efpn_backbone"
    cfg.MODEL.ROI_HEADS.NAME = "EFPNROIHeads"
    cfg.MODEL.EFPN.SMALL_BOX_SIZE = 112.0
    packaged = efpn_d2.get_config("COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml")
    packaged.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    packaged.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    for node in ("MODEL", "SOLVER", "INPUT", "DATASETS", "TEST"):
        assert cfg[node].dump() == packaged[node].dump(), node
