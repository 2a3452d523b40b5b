import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from efpn_d2.engine import EFPNTrainer
from efpn_d2.inference import EFPNPredictor, load_inference_config
from tests.demo.conftest import CONFIG

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
    with pytest.raises(ValueError, match="keypoints.* MODEL.KEYPOINT_ON is True"):
        EFPNPredictor(load_inference_config(config_file, [*opts, "MODEL.KEYPOINT_ON", "True"]))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    path = tmp_path_factory.mktemp("predictor") / "tiny.yaml"
    path.write_text(CONFIG)
    torch.manual_seed(0)
    return EFPNPredictor(load_inference_config(str(path), score_threshold=0.0))


GREY = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "same"),
    [
        (GREY, np.stack([GREY] * 3, axis=2)),
        (GREY[:, :, None], np.stack([GREY] * 3, axis=2)),
        (np.dstack([COLOURS, GREY]), COLOURS),
        (np.asfortranarray(COLOURS), COLOURS),
    ],
)
def test_grey_and_alpha_are_what_they_look_like(predictor, image, same):
    found, expected = (predictor(x)["instances"] for x in (image, same))
    assert len(found) == 5 and found.image_size == (48, 64)
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, ("None", "cv2.imread")),
        (torch.from_numpy(COLOURS), ("torch.Tensor", "NumPy array of uint8")),
        ([[1, 2], [3, 4]], ("list", "NumPy array of uint8")),
        (COLOURS.astype(np.uint16), ("uint16", "0 to 255")),
        (COLOURS.astype(np.float32), ("float32", "0 to 255")),
        (COLOURS / 255, ("float64", "by 255")),
        (COLOURS > 9, ("bool", "by 255")),
        (COLOURS.transpose(2, 0, 1), ("(3, 48, 64)", "transpose(1, 2, 0)")),
        (COLOURS[None], ("(1, 48, 64, 3)", "(height, width, 3)")),
        (np.dstack([GREY, GREY]), ("(48, 64, 2)", "(height, width, 3)")),
        (COLOURS[:0], ("(0, 64, 3)", "no pixels")),
        (COLOURS[0, 0], ("(3,)", "(height, width, 3)")),
        (COLOURS[:1].repeat(80, axis=1), ("5120 x 1 ", "INPUT.MAX_SIZE_TEST 96")),
    ],
)
def test_any_other_image_is_refused_in_one_sentence(predictor, image, words):
    with pytest.raises(ValueError) as error:
        predictor(image)
    message = str(error.value)
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


@pytest.mark.parametrize("image_format", ["L", "YUV-BT.601"])
def test_other_formats_of_the_input_are_refused(config_file, image_format):
    with pytest.raises(ValueError, match=f"^INPUT.FORMAT is {image_format}: use BGR or RGB"):
        load_inference_config(config_file, ["INPUT.FORMAT", image_format])
    cfg = load_inference_config(config_file).clone()
    cfg.defrost()
    cfg.INPUT.FORMAT = image_format
    for build in (EFPNPredictor, EFPNTrainer.build_model):
        with pytest.raises(ValueError, match="INPUT.FORMAT"):
            build(cfg)
