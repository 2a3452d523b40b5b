import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from efpn_d2.inference import EFPNPredictor, load_inference_config

from ..demo.conftest import CONFIG

pytestmark = pytest.mark.fast


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return str(path)


def test_packaged_config_is_found_by_name():
    cfg = load_inference_config("COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml", ["SEED", "3"], 0.7)
    assert cfg.SEED == 3
    assert cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == cfg.MODEL.RETINANET.SCORE_THRESH_TEST == 0.7
    assert cfg.is_frozen()


def test_cuda_falls_back_to_the_cpu_only_where_there_is_none(config_file, monkeypatch):
    for available, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda a=available: a)
        assert expected == load_inference_config(config_file, ["MODEL.DEVICE", "cuda"]).MODEL.DEVICE


def test_stock_heads_start_the_small_heads(config_file, tmp_path):
    cfg = load_inference_config(config_file)
    stock = {
        key: value
        for key, value in build_model(cfg).state_dict().items()
        if not key.startswith(("roi_heads.small_", "backbone.extension."))
    }
    torch.save({"model": stock}, tmp_path / "stock.pth")
    weights = ["MODEL.WEIGHTS", str(tmp_path / "stock.pth")]
    loaded = EFPNPredictor(load_inference_config(config_file, weights)).model.state_dict()
    small = [key for key in loaded if key.startswith("roi_heads.small_")]
    assert small
    for key in small:
        torch.testing.assert_close(loaded[key], stock[key.replace("small_", "")], rtol=0, atol=0)


def test_own_checkpoint_is_loaded_as_it_is(config_file, tmp_path):
    model = build_model(load_inference_config(config_file))
    DetectionCheckpointer(model, str(tmp_path)).save("own")
    weights = ["MODEL.WEIGHTS", str(tmp_path / "own.pth")]
    predictor = EFPNPredictor(load_inference_config(config_file, weights))
    assert weights[1] == predictor.cfg.MODEL.WEIGHTS
    for key, value in predictor.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_several_scales_are_made_of_the_image_itself(config_file, image_format):
    """With one scale, the detections are those at that scale, whatever INPUT.MIN_SIZE_TEST is."""
    image = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    scales = ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(64,)", "TEST.AUG.FLIP", "False"]
    found = []
    for opts in (["INPUT.MIN_SIZE_TEST", "64"], ["INPUT.MIN_SIZE_TEST", "32", *scales]):
        cfg = load_inference_config(config_file, [*opts, "INPUT.FORMAT", image_format], 0.0)
        torch.manual_seed(0)
        found.append(EFPNPredictor(cfg)(image)["instances"])
    single, at_scales = found
    assert len(single) == 5
    torch.testing.assert_close(at_scales.pred_boxes.tensor, single.pred_boxes.tensor)
    torch.testing.assert_close(at_scales.scores, single.scores)


def test_several_scales_of_a_detector_that_has_none(config_file):
    opts = ["TEST.AUG.ENABLED", "True", "MODEL.ROI_HEADS.NAME", "StandardROIHeads"]
    with pytest.raises(ValueError, match="no keypoints, but MODEL.KEYPOINT_ON is True"):
        EFPNPredictor(load_inference_config(config_file, [*opts, "MODEL.KEYPOINT_ON", "True"]))
