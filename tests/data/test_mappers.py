"""What the mapper of this package does better than Detectron2's, and where it does the same."""

import json

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from efpn_d2.config import add_efpn_config
from efpn_d2.data.datasets import register_coco_sets
from efpn_d2.data.mappers import DetectionMapper, build_train_mapper
from efpn_d2.engine import EFPNTrainer
from efpn_d2.inspection.image_samples import build_test_mapper

pytestmark = pytest.mark.fast

# 40 x 30 px, brought to 100 x 75: times 2.5.
BOX = [3, 5, 7, 9]
SCALED = [7.5, 12.5, 25.0, 35.0]  # x0, y0, x1, y1


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def cfg():
    config = get_cfg()
    add_efpn_config(config)
    config.INPUT.MIN_SIZE_TRAIN, config.INPUT.MIN_SIZE_TEST = (75,), 75
    config.INPUT.RANDOM_FLIP = "none"
    return config


def record_of(path, **fields):
    annotation = {"bbox": BOX, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0} | fields
    return {"file_name": str(path), "width": 40, "height": 30, "annotations": [annotation]}


def boxes(sample):
    return sample["instances"].gt_boxes.tensor.tolist()


@pytest.mark.parametrize("integers", [list, np.array])
def test_boxes_of_integers_are_scaled_to_the_fraction(cfg, image, integers):
    record = record_of(image, bbox=integers(BOX))
    assert boxes(build_train_mapper(cfg)(record)) == [SCALED]
    assert boxes(build_test_mapper(cfg)(record)) == [SCALED]
    assert record["annotations"][0]["bbox"] is not None
    assert list(record["annotations"][0]["bbox"]) == BOX  # the record stays


def test_they_are_not_cut_by_any_of_several_steps(image):
    steps = [T.Resize((45, 60)), T.Resize((31, 41)), T.Resize((75, 100))]
    mapper = DetectionMapper(True, augmentations=steps, image_format="BGR")
    np.testing.assert_allclose(boxes(mapper(record_of(image))), [SCALED], atol=1e-5)


def test_polygons_of_integers_are_scaled_to_the_fraction(cfg, image):
    cfg.MODEL.MASK_ON = True
    triangle = [3, 5, 10, 5, 3, 14]
    sample = build_train_mapper(cfg)(record_of(image, segmentation=[triangle]))
    (polygons,) = sample["instances"].gt_masks.polygons
    assert polygons[0].tolist() == [7.5, 12.5, 25.0, 12.5, 7.5, 35.0]


def test_boxes_of_floats_are_detectron2s_to_the_last_bit(cfg, image):
    box = [3.1, 5.7, 7.3, 9.9]
    record = record_of(image, bbox=box, segmentation=[[3.1, 5.7, 9, 5, 3, 14.3]])
    cfg.MODEL.MASK_ON = True
    ours, stock = (m(record)["instances"] for m in (build_train_mapper(cfg), DatasetMapper(cfg)))
    assert torch.equal(ours.gt_boxes.tensor, stock.gt_boxes.tensor)
    assert (ours.gt_masks.polygons[0][0] == stock.gt_masks.polygons[0][0]).all()


def test_a_registered_json_of_integers_is_loaded_as_floats(tmp_path, image):
    content = {
        "images": [{"id": 1, "file_name": image.name, "width": 40, "height": 30}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX, "area": 63, "iscrowd": 0}
            | {"segmentation": [[3, 5, 10, 5, 3, 14]]}
        ],
        "categories": [{"id": 1, "name": "a"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    try:
        register_coco_sets([["mappers_test", str(tmp_path / "a.json"), str(tmp_path)]])
        (record,) = DatasetCatalog.get("mappers_test")
    finally:
        DatasetCatalog.remove("mappers_test")
        MetadataCatalog.remove("mappers_test")
    annotation = record["annotations"][0]
    assert annotation["bbox"] == BOX and {type(v) for v in annotation["bbox"]} == {float}
    assert {type(v) for v in annotation["segmentation"][0]} == {float}


@pytest.mark.parametrize(
    ("name", "dtype", "mode"),
    [
        ("a.png", np.uint16, "I;16"),
        ("a.tif", np.uint16, "I;16"),
        ("a.tif", np.int32, "I"),
        ("a.tif", np.float32, "F"),
    ],
)
def test_images_of_more_than_8_bits_are_refused_by_their_name(cfg, tmp_path, name, dtype, mode):
    pixels = np.full((30, 40), 1000, dtype=dtype)
    Image.fromarray(pixels).save(tmp_path / name)
    for mapper in (build_train_mapper(cfg), DetectionMapper(cfg, is_train=False)):
        with pytest.raises(ValueError) as error:
            mapper(record_of(tmp_path / name))
        message = str(error.value)
        assert str(tmp_path / name) in message and f"mode {mode}," in message
        assert "8 bits" in message


def test_12_bits_are_refused_too(cfg, tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 40 30 4095\n" + np.full((30, 40), 3000, dtype=">u2").tobytes())
    with pytest.raises(ValueError, match="a.pgm"):
        build_train_mapper(cfg)(record_of(path))


def test_the_evaluation_refuses_them_too(cfg, tmp_path, image):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((30, 40), 1000, dtype=np.uint16)).save(path)
    cfg.DATALOADER.NUM_WORKERS = 0
    DatasetCatalog.register("mappers_test", lambda: [record_of(image), record_of(path)])
    try:
        loader = iter(EFPNTrainer.build_test_loader(cfg, "mappers_test"))
        assert next(loader)[0]["image"].shape == (3, 75, 100)
        with pytest.raises(ValueError, match=r"deep.png"):
            next(loader)
    finally:
        DatasetCatalog.remove("mappers_test")
