import contextlib

import pytest
import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances, pairwise_iou

from efpn_d2.modeling import EFPNWithTTA
from efpn_d2.modeling.meta_arch import check_multi_scale_test
from tests.modeling.helpers import tiny_config

BOX = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"
MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_EFPN_1x.yaml"
CASCADE_MASK = "COCO-InstanceSegmentation/cascade_mask_rcnn_R_50_EFPN_3x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_EFPN_1x.yaml"
HEIGHT, WIDTH = 64, 96


def config(name=BOX, sizes=(64,), **options):
    cfg = tiny_config(name)
    cfg.MODEL.EFPN.SMALL_BOX_SIZE = 24.0
    # On each level; SMALL_BOX_SIZE and twice that are above the second and the third.
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[11, 22, 44, 60]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 200
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.INPUT.MIN_SIZE_TEST = HEIGHT
    cfg.TEST.AUG.ENABLED = True
    cfg.TEST.AUG.MIN_SIZES = sizes
    cfg.TEST.AUG.FLIP = False
    cfg.merge_from_list([x for item in options.items() for x in item])
    return cfg


def detector(cfg):
    """Random weights that give scores between 0 and 1 and move boxes by a few pixels."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    deviations = {"cls_score": 0.01, "bbox_pred": 0.002, "anchor_deltas": 2e-4, "predictor": 0.1}
    for name, parameter in model.named_parameters():
        part = next((part for part in deviations if f"{part}.weight" in name), None)
        if part:
            torch.nn.init.normal_(parameter, std=deviations[part])
    return model


@pytest.fixture
def record():
    pixels = torch.randint(0, 255, (3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(1))
    return {"image": pixels.to(torch.uint8), "height": HEIGHT, "width": WIDTH}


def detect(model, record):
    with torch.no_grad():
        return model([record])[0]["instances"]


def assert_same_detections(found, expected):
    assert found.image_size == expected.image_size
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    torch.testing.assert_close(found.scores, expected.scores)
    assert torch.equal(found.pred_classes, expected.pred_classes)
    if expected.has("pred_masks"):
        assert (found.pred_masks == expected.pred_masks).float().mean() > 0.999


@pytest.mark.parametrize("route_by", ["input", "object"])
@pytest.mark.parametrize("name", [BOX, MASK, CASCADE_MASK])
def test_one_scale_gives_the_detector_itself(record, name, route_by):
    """Merging changes nothing, for the detector's own NMS has left nothing to suppress."""
    cfg = config(name, **{"MULTI_SCALE_TEST.ROUTE_BY": route_by})
    model = detector(cfg)
    expected = detect(model, record)
    assert len(expected) > 20
    assert 5 < (expected.pred_boxes.area().sqrt() < 24).sum() < len(expected) - 5
    assert_same_detections(detect(EFPNWithTTA(cfg, model), record), expected)


def test_one_larger_scale_gives_the_detector_at_that_scale(record):
    """From the file's own pixels, and brought back to its size."""
    cfg = config(sizes=(128,))
    model = detector(cfg)
    image = record["image"].permute(1, 2, 0).numpy()
    scaled = ResizeShortestEdge([128, 128], 4000).get_transform(image).apply_image(image)
    scaled = torch.as_tensor(scaled.transpose(2, 0, 1).copy())
    assert scaled.shape == (3, 128, 192)
    expected = detect(model, {**record, "image": scaled})
    assert_same_detections(detect(EFPNWithTTA(cfg, model), record), expected)


@pytest.mark.fast
def test_each_scale_sees_what_it_would_see_alone(record):
    """Images of different sizes in one batch would be padded, which moves scores at the border."""
    cfg = config(sizes=(64, 90, 128))
    model = detector(cfg)
    tta = EFPNWithTTA(cfg, model)
    inputs, _ = tta._get_augmented_inputs(record)
    with torch.no_grad():
        together = tta._batch_inference(inputs)
        alone = [model.inference([x], do_postprocess=False)[0] for x in inputs]
        padded = model.inference(inputs, do_postprocess=False)
    for x, y in zip(together, alone, strict=True):
        assert torch.equal(x.pred_boxes.tensor, y.pred_boxes.tensor)
        assert torch.equal(x.scores, y.scores)
    assert not torch.equal(padded[0].pred_boxes.tensor, alone[0].pred_boxes.tensor)


def test_a_flipped_image_is_flipped_back(record):
    """The detections of a mirror image are those of the image, mirrored."""
    cfg = config(MASK, **{"TEST.AUG.FLIP": True})
    model = detector(cfg)
    mirrored = {**record, "image": record["image"].flip(2)}
    found, other = (detect(EFPNWithTTA(cfg, model), x) for x in (record, mirrored))
    boxes = other.pred_boxes.tensor[:, [2, 1, 0, 3]]
    boxes[:, [0, 2]] = WIDTH - boxes[:, [0, 2]]
    order = pairwise_iou(found.pred_boxes, Boxes(boxes)).argmax(dim=1)
    same = order == torch.arange(len(found))
    assert same.float().mean() > 0.9
    torch.testing.assert_close(found.scores, other.scores, rtol=1e-3, atol=1e-4)
    agreeing = (found.pred_masks == other.pred_masks.flip(2))[same].float().mean()
    assert agreeing > 0.99


@contextlib.contextmanager
def recorded_pooling(model):
    """What the small heads pool while the context is open: (boxes, height of the map) each."""
    heads, seen = model.roi_heads, []
    original = heads._pool_small

    def pool(pooler, feature, boxes):
        seen.extend((x.tensor, feature.shape[-2] * 2) for x in boxes)
        return original(pooler, feature, boxes)

    heads._pool_small = pool
    try:
        yield seen
    finally:
        del heads._pool_small


@pytest.mark.parametrize("name", [BOX, MASK, CASCADE_MASK])
@pytest.mark.parametrize(("route_by", "limits"), [("input", (24, 24)), ("object", (24, 48))])
def test_routing_at_each_scale(record, name, route_by, limits):
    """Boxes of every stage and of masks; the limit is approached from below, so it is the one."""
    cfg = config(name, sizes=(64, 128), **{"MULTI_SCALE_TEST.ROUTE_BY": route_by})
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[22, 44]]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 2000  # both sizes
    model = detector(cfg)
    with recorded_pooling(model) as seen:
        detect(EFPNWithTTA(cfg, model), record)
    calls = {BOX: 1, MASK: 2, CASCADE_MASK: 4}[name]
    for height, limit in zip((64, 128), limits, strict=True):
        of_scale = [boxes for boxes, rows in seen if rows == height]
        assert len(of_scale) == calls
        sizes = torch.cat([Boxes(boxes).area().sqrt() for boxes in of_scale])
        assert 0.8 * limit < sizes.max() < limit
    assert model.roi_heads.router.small_box_size == 24


@pytest.mark.fast
def test_masks_are_routed_where_the_merged_boxes_lie_at_each_scale(record):
    """A box of 16 x 16 px is small at 1x and, by its size at the input, not at 2x."""
    cfg = config(MASK, sizes=(64, 128))
    model = detector(cfg)
    tta = EFPNWithTTA(cfg, model)
    merged = Instances((HEIGHT, WIDTH), pred_boxes=Boxes(torch.tensor([[8.0, 8, 24, 24]])))
    merged.pred_classes, merged.scores = torch.tensor([1]), torch.tensor([0.5])
    inputs, tfms = tta._get_augmented_inputs(record)
    with torch.no_grad(), recorded_pooling(model) as seen:
        outputs = tta._batch_inference(inputs, tta._rescale_detected_boxes(inputs, merged, tfms))
    assert [(len(boxes), height) for boxes, height in seen] == [(1, 64), (0, 128)]
    assert [tuple(x.pred_masks.shape) for x in outputs] == [(1, 1, 28, 28)] * 2
    mean = tta._reduce_pred_masks(outputs, tfms)
    torch.testing.assert_close(mean, (outputs[0].pred_masks + outputs[1].pred_masks) / 2)


@pytest.mark.fast
def test_the_routing_is_restored_after_an_error(record):
    cfg = config(sizes=(128,), **{"MULTI_SCALE_TEST.ROUTE_BY": "object"})
    model = detector(cfg)
    model.backbone.forward = lambda image: 1 / 0
    with pytest.raises(ZeroDivisionError):
        detect(EFPNWithTTA(cfg, model), record)
    assert model.roi_heads.router.small_box_size == 24


def test_the_scale_of_an_object_is_that_of_the_single_scale_test(record):
    """An image of 32 px that the single-scale test enlarges to 64 is at 1x there."""
    cfg = config(sizes=(64,), **{"MULTI_SCALE_TEST.ROUTE_BY": "object"})
    small = {"image": record["image"][:, :32, :48], "height": 32, "width": 48}
    for min_size, limit in ((64, 24), (0, 48)):
        cfg.INPUT.MIN_SIZE_TEST = min_size
        model = detector(cfg)
        with recorded_pooling(model) as seen:
            detect(EFPNWithTTA(cfg, model), small)
        ((boxes, _),) = seen
        assert 0.8 * limit < Boxes(boxes).area().sqrt().max() < limit


def test_an_image_without_detections(record):
    cfg = config(MASK, sizes=(64, 128), **{"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 1.0})
    found = detect(EFPNWithTTA(cfg, detector(cfg)), record)
    assert len(found) == 0
    assert found.pred_masks.shape == (0, HEIGHT, WIDTH)


def test_detectors_without_small_heads(record):
    cfg = config(
        **{"MODEL.ROI_HEADS.NAME": "StandardROIHeads", "MULTI_SCALE_TEST.ROUTE_BY": "object"}
    )
    model = detector(cfg)
    assert_same_detections(detect(EFPNWithTTA(cfg, model), record), detect(model, record))


@pytest.mark.parametrize("route_by", ["input", "object"])
def test_p2_prime_computed_in_tiles_changes_nothing(record, route_by):
    """The tiles follow the boxes of each scale, those of masks too."""
    found = []
    for lazy in (False, True):
        cfg = config(MASK, sizes=(64, 128), **{"MULTI_SCALE_TEST.ROUTE_BY": route_by})
        cfg.MODEL.EFPN.LAZY = lazy
        cfg.MODEL.EFPN.LAZY_DENSE_ABOVE = 100.0  # never
        found.append(detect(EFPNWithTTA(cfg, detector(cfg)), record))
    assert_same_detections(*found)


def test_merging_keeps_the_best_of_each_object(record):
    """Detections of all scales, brought to the image's pixels, then one NMS per class."""
    cfg = config(sizes=(64, 128), **{"TEST.DETECTIONS_PER_IMAGE": 1000})
    model = detector(cfg)
    tta = EFPNWithTTA(cfg, model)
    inputs, _ = tta._get_augmented_inputs(record)
    with torch.no_grad():
        parts = [detector_postprocess(x, HEIGHT, WIDTH) for x in tta._batch_inference(inputs)]
    pool = Instances.cat(parts)
    pool = pool[pool.scores.argsort(descending=True)]
    kept = []
    for i in range(len(pool)):  # NMS, slowly
        rivals = [j for j in kept if pool.pred_classes[j] == pool.pred_classes[i]]
        overlap = pairwise_iou(pool.pred_boxes[i], pool.pred_boxes[rivals]) if rivals else None
        if overlap is None or overlap.max() <= cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST:
            kept.append(i)
    assert_same_detections(detect(tta, record), pool[kept])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (RETINANET, {}, "GeneralizedRCNN .*not EFPNRetinaNet"),
        (BOX, {"MODEL.META_ARCHITECTURE": "PanopticFPN"}, "GeneralizedRCNN .*not PanopticFPN"),
        (BOX, {"MODEL.KEYPOINT_ON": True}, "keypoints, but MODEL.KEYPOINT_ON is True"),
        (BOX, {"MODEL.LOAD_PROPOSALS": True}, "MODEL.LOAD_PROPOSALS is True"),
        (BOX, {"TEST.AUG.MIN_SIZES": ()}, r"MIN_SIZES is \(\): list the lengths"),
        (BOX, {"TEST.AUG.MIN_SIZES": (0, 64)}, r"MIN_SIZES is \(0, 64\)"),
        (BOX, {"MULTI_SCALE_TEST.ROUTE_BY": "size"}, "'size', which does not exist: use one of"),
    ],
)
def test_what_cannot_be_tested_at_several_scales_is_said(name, options, message):
    with pytest.raises(ValueError, match=message):
        check_multi_scale_test(config(name, **options))


@pytest.mark.fast
def test_a_detector_of_another_kind_than_the_config_says():
    model = build_model(tiny_config(RETINANET))
    with pytest.raises(ValueError, match="not EFPNRetinaNet"):
        EFPNWithTTA(config(), model)


@pytest.mark.fast
def test_pixels_that_would_be_scaled_in_another_way(record):
    cfg = config()
    with pytest.raises(ValueError, match="an image of torch.float32, .*uint8"):
        detect(EFPNWithTTA(cfg, detector(cfg)), {**record, "image": record["image"].float()})
