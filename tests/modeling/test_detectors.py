"""Whole detectors: every packaged config; empty, odd and extreme inputs."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage

import efpn_d2
from efpn_d2.model_zoo import list_configs
from tests.modeling.helpers import (
    narrow,
    tiny_config,
    training_input,
    with_teacher_image,
    without_gradient,
)

MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_EFPN_1x.yaml"
CASCADE_MASK = "COCO-InstanceSegmentation/cascade_mask_rcnn_R_50_EFPN_3x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_EFPN_1x.yaml"


def train_step(model: torch.nn.Module, inputs: list[dict]) -> dict[str, torch.Tensor]:
    model.train()
    with EventStorage():
        losses = model(inputs)
    assert all(torch.isfinite(v) for v in losses.values()), losses
    model.zero_grad(set_to_none=True)
    sum(losses.values()).backward()
    return losses


def detect(model: torch.nn.Module, inputs: list[dict]) -> list[Instances]:
    model.eval()
    with torch.no_grad():
        return [x["instances"] for x in model(inputs)]


@pytest.mark.parametrize("name", list_configs())
def test_every_config_builds_trains_a_step_and_detects(name):
    cfg = efpn_d2.get_config(name)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    narrow(cfg)
    torch.manual_seed(0)
    model = build_model(cfg)
    inputs = [training_input([[4, 4, 12, 14], [2, 2, 60, 60]]), training_input([])]
    train_step(model, with_teacher_image(inputs))
    assert without_gradient(model) == []
    found = detect(model, inputs)
    assert len(found) == 2
    assert all(x.image_size == (64, 96) for x in found)


@pytest.mark.fast
@pytest.mark.parametrize("name", [MASK, CASCADE_MASK, RETINANET])
@pytest.mark.parametrize(
    "boxes", [[[], []], [[], [[4, 4, 12, 14]]], [[[2, 2, 90, 60]], [[2, 2, 90, 60]]]]
)
def test_images_with_nothing_or_nothing_small(name, boxes):
    torch.manual_seed(0)
    model = build_model(tiny_config(name))
    train_step(model, [training_input(b) for b in boxes])
    assert without_gradient(model) == []


@pytest.mark.fast
@pytest.mark.parametrize("name", [MASK, RETINANET])
@pytest.mark.parametrize("size", [(33, 65), (64, 64), (50, 127), (1, 1)])
def test_odd_image_sizes_and_padding(name, size):
    torch.manual_seed(0)
    model = build_model(tiny_config(name))
    found = detect(model, [training_input([], size=size), training_input([], size=(40, 90))])
    assert found[0].image_size == size
    for x, (height, width) in zip(found, (size, (40, 90)), strict=True):
        boxes = x.pred_boxes.tensor
        assert (boxes >= 0).all()
        assert (boxes[:, [0, 2]] <= width).all()
        assert (boxes[:, [1, 3]] <= height).all()


@pytest.mark.fast
def test_padding_on_the_right_and_below_does_not_move_p2_prime():
    torch.manual_seed(0)
    model = build_model(tiny_config()).eval()
    with torch.no_grad():
        image = model.preprocess_image([training_input([], size=(64, 64))]).tensor
        padded = torch.nn.functional.pad(image, (0, 64, 0, 32))
        small, large = (model.backbone(x)["p2_prime"] for x in (image, padded))
    # In the upper left corner the padding changes only what the deep levels, which see further,
    # pass down: the maps correlate, and only without a shift.
    corner = small[..., :8, :8].flatten(), large[..., :8, :8].flatten()
    assert torch.corrcoef(torch.stack(corner))[0, 1] > 0.9
    shifted = large[..., 2:10, 2:10].flatten()
    assert torch.corrcoef(torch.stack([corner[0], shifted]))[0, 1] < 0.9


@pytest.mark.fast
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("routing", ["reassign", "duplicate"])
def test_maps_of_infinities_give_no_detection(value, routing):
    cfg = tiny_config(MASK)
    cfg.MODEL.EFPN.ROUTING = routing
    model = build_model(cfg).eval()
    images = ImageList(torch.zeros(1, 3, 64, 64), [(62, 62)])
    strides = {"p2_prime": 2, "p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
    features = {k: torch.full((1, 16, 64 // s, 64 // s), value) for k, s in strides.items()}
    proposals = [Instances((62, 62))]
    proposals[0].proposal_boxes = Boxes(torch.tensor([[10.0, 10, 20, 20], [1, 1, 61, 61]]))
    proposals[0].objectness_logits = torch.ones(2)
    with torch.no_grad():
        found, _ = model.roi_heads(images, features, proposals)
    assert len(found[0]) == 0


@pytest.mark.fast
def test_retinanet_input_features_that_do_not_exist_are_named():
    cfg = tiny_config(RETINANET)
    cfg.MODEL.RETINANET.IN_FEATURES = ["p2_prime", "p2", "p3", "p4", "p5", "p6"]
    with pytest.raises(ValueError, match="MODEL.RETINANET.IN_FEATURES reads p2, but"):
        build_model(cfg)


@pytest.mark.fast
def test_forgotten_add_efpn_config_is_named():
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_efpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RPN.IN_FEATURES = ["p2"]
    with pytest.raises(KeyError, match=r"call efpn_d2.add_efpn_config\(cfg\)"):
        build_model(cfg)


@pytest.mark.fast
def test_bf16_autocast_trains_and_detects():
    torch.manual_seed(0)
    model = build_model(tiny_config(MASK))
    inputs = [training_input([[4, 4, 12, 14], [2, 2, 60, 60]]), training_input([])]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        train_step(model, inputs)
        found = detect(model, inputs)
    assert without_gradient(model) == []
    assert all(x.pred_boxes.tensor.dtype == torch.float32 for x in found)
