"""A tiny detector with random weights, and images to run it on."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

DEMO_DIR = Path(__file__).resolve().parents[2] / "demo"

CONFIG = """
VERSION: 2
MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  WEIGHTS: ""
  DEVICE: "cpu"
  BACKBONE: {NAME: "build_resnet_efpn_backbone", FREEZE_AT: 0}
  RESNETS: {DEPTH: 18, RES2_OUT_CHANNELS: 64, NORM: "BN",
            OUT_FEATURES: ["res2", "res3", "res4", "res5"]}
  FPN: {IN_FEATURES: ["res2", "res3", "res4", "res5"], OUT_CHANNELS: 16}
  EFPN: {SMALL_BOX_SIZE: 24.0}
  ANCHOR_GENERATOR: {SIZES: [[8], [16], [32], [64], [128]], ASPECT_RATIOS: [[1.0]]}
  RPN: {IN_FEATURES: ["p2", "p3", "p4", "p5", "p6"], POST_NMS_TOPK_TEST: 20}
  ROI_HEADS: {NAME: "EFPNROIHeads", IN_FEATURES: ["p2", "p3", "p4", "p5"], NUM_CLASSES: 8}
  ROI_BOX_HEAD: {NAME: "FastRCNNConvFCHead", NUM_FC: 1, FC_DIM: 16, POOLER_RESOLUTION: 7}
DATASETS:
  TRAIN: ["synthetic_signs_native1x_train"]
  TEST: ["synthetic_signs_native1x_val"]
INPUT: {MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 96}
DATALOADER: {NUM_WORKERS: 0}
SOLVER: {MAX_ITER: 2, IMS_PER_BATCH: 2, BASE_LR: 0.001, STEPS: [], CHECKPOINT_PERIOD: 1}
TEST: {DETECTIONS_PER_IMAGE: 5}
EVALUATION: {SIZE_BINS: [0, 16]}
SEED: 1
"""


def load_script(name):
    spec = importlib.util.spec_from_file_location(f"demo_{name}", DEMO_DIR / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def image_dir(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        image = np.random.default_rng(i).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), image)
    return folder
