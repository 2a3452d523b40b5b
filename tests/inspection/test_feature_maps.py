import logging

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage

from efpn_d2.data.student_view import TeacherViewMapper
from efpn_d2.inspection.feature_maps import FeatureMapExtractor, FeatureMaps, measure_distance
from efpn_d2.inspection.pyramids import PyramidSource, load_pyramid
from tests.inspection.tiny_pyramid import write_image, write_pyramid

pytestmark = pytest.mark.fast


def record(path, boxes=(), crowd=()) -> dict:
    annotations = [
        {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": int(c)}
        for group, c in ((boxes, False), (crowd, True))
        for box in group
    ]
    return {"file_name": str(path), "annotations": annotations}


def slow_views(cfg, pixels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Student's and teacher's images, padded by hand, of RGB pixels."""
    image = torch.from_numpy(pixels[:, :, ::-1].copy()).permute(2, 0, 1).double()  # BGR
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    image = ((image - mean) / std).float()
    multiple = 64 if cfg.DISTILL.VIEW == "downsample" else 32
    height, width = (-(-side // multiple) * multiple for side in image.shape[1:])
    padded = torch.zeros(1, 3, height, width)
    padded[0, :, : image.shape[1], : image.shape[2]] = image
    if cfg.DISTILL.VIEW == "downsample":
        quarters = [padded[:, :, y::2, x::2] for y in (0, 1) for x in (0, 1)]
        return sum(quarters) / 4, padded
    double = torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return padded, double(padded)


@pytest.mark.parametrize("view", ["downsample", "upsample"])
@pytest.mark.parametrize("size", [(61, 45), (128, 64), (37, 99)])
def test_maps_are_those_of_the_network_run_by_hand_without_padding(tmp_path, view, size):
    ftt, _ = write_pyramid(tmp_path, "FTT", **{"DISTILL.VIEW": view})
    espcn, _ = write_pyramid(
        tmp_path, "ESPCN", 1, **{"DISTILL.VIEW": view, "MODEL.EFPN.UPSAMPLER": "espcn"}
    )
    pixels = write_image(tmp_path / "image.png", *size)
    per_cell = 4 if view == "downsample" else 2  # pixels of the file
    columns, rows = (-(-side // per_cell) for side in size)
    maps = FeatureMapExtractor([ftt, espcn])({"file_name": str(tmp_path / "image.png")})

    assert maps.name == "image.png" and maps.file_size == size and maps.stride == 2
    assert maps.size == tuple(side * 2 / per_cell for side in size)
    np.testing.assert_array_equal(maps.image, pixels)
    assert maps.boxes.shape == (0, 4)
    assert list(maps.extended) == ["FTT", "ESPCN"]
    with torch.no_grad():
        for source in (ftt, espcn):
            cfg, model = load_pyramid(source)
            student, teacher = slow_views(cfg, pixels)
            expected = model.backbone.student_maps(student)["p2_prime"][0, :, :rows, :columns]
            torch.testing.assert_close(maps.extended[source.label], expected, rtol=1e-4, atol=1e-5)
        cfg, model = load_pyramid(ftt)
        student, teacher = slow_views(cfg, pixels)
        expected = model.backbone(teacher)["p2"][0, :, :rows, :columns]
        torch.testing.assert_close(maps.target, expected, rtol=1e-4, atol=1e-5)
        p2 = model.backbone(student)["p2"][0]
    for y, x in ((0, 0), (3, 2), (rows - 1, columns - 1)):
        torch.testing.assert_close(maps.stock[:, y, x], p2[:, y // 2, x // 2], rtol=1e-4, atol=1e-5)
    assert maps.stock.shape == maps.target.shape


@pytest.mark.parametrize("view", ["downsample", "upsample"])
@pytest.mark.parametrize("level", ["p2_prime", "p3_prime"])
def test_distances_are_the_losses_of_training(tmp_path, view, level):
    source, weights = write_pyramid(tmp_path, "FTT", **{"DISTILL.VIEW": view})
    write_image(tmp_path / "image.png", 128, 64)  # whole multiples: training has no padding either
    boxes = [[3, 5, 40, 21], [30, 10, 45, 50], [100, 40, 128, 64]]
    extractor = FeatureMapExtractor([source], level=level)
    maps = extractor(record(tmp_path / "image.png", boxes))
    distance = measure_distance(maps.extended["FTT"], maps)

    cfg = extractor.cfg.clone()
    cfg.defrost()
    cfg.MODEL.META_ARCHITECTURE, cfg.DISTILL.STAGE = "DistillationRCNN", "distill"
    model = build_model(cfg)
    model.load_state_dict(weights)
    for module in model.modules():  # statistics of single batches are none of the detector's
        module.training = False
    model.training = True
    mapper = extractor._mapper if view == "upsample" else TeacherViewMapper(extractor._mapper)
    sample = mapper(record(tmp_path / "image.png", boxes))
    with EventStorage(), torch.no_grad():
        losses = model([sample])
    name = f"loss_distill_{level.removesuffix('_prime')}"
    assert distance.overall == pytest.approx(losses[f"{name}_global"].item(), rel=1e-5)
    assert distance.on_objects == pytest.approx(losses[f"{name}_positive"].item(), rel=1e-5)


def test_distances_are_means_over_all_and_over_covered_elements():
    generator = torch.Generator().manual_seed(0)
    features, target = torch.randn(2, 5, 7, 9, generator=generator)
    boxes = torch.tensor([[1.0, 2.5, 7.9, 6.0], [6.0, 4.0, 18.0, 8.1]])
    maps = FeatureMaps("", None, (18.0, 13.0), (18, 13), boxes, 2, target, {}, features)
    every, covered = [], []
    for y in range(7):
        for x in range(9):
            cell = (features[:, y, x] - target[:, y, x]).abs().tolist()
            every += cell
            if any(
                x0 < 2 * x + 2 and x1 > 2 * x and y0 < 2 * y + 2 and y1 > 2 * y
                for x0, y0, x1, y1 in boxes.tolist()
            ):
                covered += cell
    distance = measure_distance(features, maps)
    assert distance.overall == pytest.approx(sum(every) / len(every), rel=1e-5)
    assert distance.on_objects == pytest.approx(sum(covered) / len(covered), rel=1e-5)
    assert measure_distance(features, maps._replace(boxes=torch.zeros(0, 4))).on_objects is None
    assert measure_distance(target, maps) == (0, 0)


@pytest.mark.parametrize("view", ["downsample", "upsample"])
def test_boxes_follow_the_scale_and_crowds_are_no_objects(tmp_path, view):
    options = {"DISTILL.VIEW": view, "INPUT.MIN_SIZE_TEST": 60}
    source, _ = write_pyramid(tmp_path, "FTT", **options)
    write_image(tmp_path / "image.png", 40, 30)
    maps = FeatureMapExtractor([source])(
        record(tmp_path / "image.png", [[10, 5, 20, 15], [35, 20, 50, 40]], crowd=[[0, 0, 9, 9]])
    )
    # Twice the file, whatever the teacher sees; clipped at the image's border.
    assert maps.size == (80, 60)
    assert maps.image.shape[:2] == ((120, 160) if view == "downsample" else (60, 80))
    assert maps.boxes.tolist() == [[20, 10, 40, 30], [70, 40, 80, 60]]


def test_another_teacher_gives_the_target_alone(tmp_path):
    source, _ = write_pyramid(tmp_path, "FTT")
    teacher, weights = write_pyramid(tmp_path, "teacher", 1)
    stock = {k: v for k, v in weights.items() if not k.startswith("backbone.extension.")}
    torch.save({"model": stock}, teacher.weights)  # as the base stage writes it
    write_image(tmp_path / "image.png", 50, 40)
    image = {"file_name": str(tmp_path / "image.png")}
    own = FeatureMapExtractor([source])(image)
    given = FeatureMapExtractor([source], teacher_weights=teacher.weights)(image)
    in_config = FeatureMapExtractor([source], opts=["DISTILL.TEACHER_WEIGHTS", teacher.weights])(
        image
    )
    assert torch.equal(own.extended["FTT"], given.extended["FTT"])
    assert torch.equal(own.stock, given.stock)
    assert not torch.allclose(own.target, given.target)
    assert torch.equal(given.target, in_config.target)


def extract(folder, *sources: PyramidSource) -> FeatureMaps:
    write_image(folder / "image.png", 50, 40)
    return FeatureMapExtractor(sources)({"file_name": str(folder / "image.png")})


def test_a_model_with_another_stock_pyramid_is_told(tmp_path, caplog):
    one, weights = write_pyramid(tmp_path, "one")
    other, _ = write_pyramid(tmp_path, "other", 1)
    copy = PyramidSource("copy", one.config, one.weights)
    with caplog.at_level(logging.WARNING):
        extract(tmp_path, one, copy)
        assert "stock pyramid" not in caplog.text
        extract(tmp_path, one, other)
    assert "The stock pyramid of model 'other' is not that of 'one'" in caplog.text


def test_models_of_different_width_are_refused(tmp_path):
    one, _ = write_pyramid(tmp_path, "one")
    wide, _ = write_pyramid(tmp_path, "wide", **{"MODEL.FPN.OUT_CHANNELS": 24})
    with pytest.raises(ValueError, match="The map of model 'wide' has shape .*same pyramid"):
        extract(tmp_path, one, wide)


def test_images_that_cannot_be_used_are_refused(tmp_path):
    extractor = FeatureMapExtractor([write_pyramid(tmp_path, "FTT")[0]])
    (tmp_path / "text.png").write_text("nothing")
    for name in ("text.png", "missing.png"):
        with pytest.raises(ValueError, match=f"{name}' cannot be read as an image"):
            extractor({"file_name": str(tmp_path / name)})
    write_image(tmp_path / "image.png", 50, 40)
    wrong_size = {"file_name": str(tmp_path / "image.png"), "width": 40, "height": 50}
    with pytest.raises(ValueError, match="Mismatched image shape"):
        extractor(wrong_size)


@pytest.mark.parametrize(
    ("labels", "level", "message"),
    [
        (["a", "a"], "p2_prime", r"\['a', 'a'\]: .*different labels"),
        ([], "p2_prime", r"are \[\]: give one or more"),
        (["a"], "p4", "The level is 'p4': use one of p2_prime, p3_prime"),
    ],
)
def test_mistakes_are_one_clear_sentence(labels, level, message):
    with pytest.raises(ValueError, match=message):
        FeatureMapExtractor([PyramidSource(label, "c", "w") for label in labels], level=level)
