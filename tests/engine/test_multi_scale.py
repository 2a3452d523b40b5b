"""Evaluation at several scales."""

import json
from pathlib import Path

import pytest
import torch

from efpn_d2.engine import EFPNTrainer
from tests.engine.tiny_training import register, tiny_config, unregister

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    register("multi_scale_test", tmp_path_factory.mktemp("data"))
    yield "multi_scale_test"
    unregister("multi_scale_test")


def evaluate(method, cfg):
    torch.manual_seed(0)
    model = EFPNTrainer.build_model(cfg)
    model.eval()
    results = method(cfg, model)
    return results, {
        path.parent.name: json.loads(path.read_text())
        for path in Path(cfg.OUTPUT_DIR).glob("*/coco_instances_results.json")
    }


def test_scales_are_made_of_the_files_pixels_and_named_in_the_results(dataset, tmp_path):
    """One scale of 64 px is the single-scale test at 64 px, whatever that of the config is."""
    # Below that score Detectron2 drops what several scales found, whatever the config says.
    cfg = tiny_config(dataset, tmp_path / "plain", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "1e-8")
    expected, predictions = evaluate(EFPNTrainer.test, cfg)
    cfg.OUTPUT_DIR = str(tmp_path / "scales")
    cfg.INPUT.MIN_SIZE_TEST = 32
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.FLIP = (64,), False
    cfg.freeze()
    results, at_scales = evaluate(EFPNTrainer.test_at_scales, cfg)
    assert cfg.INPUT.MIN_SIZE_TEST == 32
    assert set(results) == {f"{key}_TTA" for key in expected}
    assert list(at_scales) == ["inference_TTA"] and list(predictions) == ["inference"]
    pairs = list(zip(at_scales["inference_TTA"], predictions["inference"], strict=True))
    assert len(pairs) > 50
    for found, single in pairs:
        assert found["image_id"] == single["image_id"]
        assert found["category_id"] == single["category_id"]
        assert found["score"] == pytest.approx(single["score"], abs=1e-5)
        assert found["bbox"] == pytest.approx(single["bbox"], abs=1e-2)
    assert results["bbox_TTA"].keys() == expected["bbox"].keys()
