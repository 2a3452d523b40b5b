"""Masks and keypoints that a training would miss at some image, said at its start."""

import importlib.util
import json

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from PIL import Image
from pycocotools import mask as run_lengths

from efpn_d2.config import add_efpn_config
from efpn_d2.data.mappers import DetectionMapper, build_train_mapper
from efpn_d2.engine import EFPNTrainer, build_resumable_train_loader

pytestmark = pytest.mark.fast

NAME = "object_checks_test"
POLYGON = {"segmentation": [[5, 5, 25, 5, 25, 20]]}
_MASK = np.zeros((30, 40), dtype=np.uint8, order="F")
_MASK[5:20, 5:25] = 1
RUN_LENGTHS = run_lengths.encode(_MASK)
RLE = {"segmentation": {**RUN_LENGTHS, "counts": RUN_LENGTHS["counts"].decode()}}
COUNTS = {"segmentation": {"size": [30, 40], "counts": [155, 15, 1030]}}
POINTS = {"keypoints": [10, 10, 2, 12, 12, 2]}
CROWD = {"iscrowd": 1}


@pytest.fixture
def cfg(tmp_path):
    config = get_cfg()
    add_efpn_config(config)
    config.DATASETS.TRAIN = (NAME,)
    config.DATALOADER.NUM_WORKERS, config.SOLVER.IMS_PER_BATCH = 0, 1
    config.INPUT.MIN_SIZE_TRAIN = (60,)
    config.OUTPUT_DIR = str(tmp_path)
    return config


@pytest.fixture
def register(tmp_path):
    """Registers a data set whose images have these objects."""

    def to_catalog(*images):
        Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(tmp_path / "0.png")
        content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
        for i, objects in enumerate(images):
            Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
            image = {"id": i, "file_name": f"{i}.png", "width": 40, "height": 30}
            content["images"].append(image)
            for fields in objects:
                number = len(content["annotations"]) + 1
                annotation = {"id": number, "image_id": i, "category_id": 1, "iscrowd": 0}
                content["annotations"].append(annotation | {"bbox": [5, 5, 20, 15]} | fields)
        (tmp_path / "set.json").write_text(json.dumps(content))
        load = lambda: load_coco_json(str(tmp_path / "set.json"), str(tmp_path), NAME)  # noqa: E731
        DatasetCatalog.register(NAME, load)

    yield to_catalog
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def first_batch(cfg):
    return next(iter(EFPNTrainer.build_train_loader(cfg)))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([[POLYGON], [{}, POLYGON]], ("MODEL.MASK_ON", "1 of the 3 objects", "1.png")),
        ([[{}], [{}]], ("MODEL.MASK_ON", "2 of the 2 objects", "0.png")),
        ([[POLYGON, RLE]], ("INPUT.MASK_FORMAT", "1 of the 2 objects", "bitmask")),
        ([[COUNTS]], ("INPUT.MASK_FORMAT", "1 of the 1 objects", "bitmask")),
    ],
)
def test_masks_that_are_missing_or_of_another_kind(cfg, register, images, words):
    register(*images)
    first_batch(cfg)  # boxes alone
    cfg.MODEL.MASK_ON = True
    with pytest.raises(ValueError) as error:
        EFPNTrainer.build_train_loader(cfg)
    assert [word for word in words if word not in str(error.value)] == []
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("mask_format", "images"),
    [
        ("polygon", [[POLYGON, POLYGON]]),
        ("polygon", [[POLYGON, CROWD, RLE | CROWD]]),  # crowds are not trained on
        ("bitmask", [[POLYGON, RLE, COUNTS]]),
    ],
)
def test_masks_that_can_be_trained_on(cfg, register, mask_format, images):
    register(*images)
    cfg.MODEL.MASK_ON, cfg.INPUT.MASK_FORMAT = True, mask_format
    (sample,) = first_batch(cfg)
    objects = [fields for fields in images[0] if not fields.get("iscrowd")]
    assert len(sample["instances"].gt_masks) == len(objects)


def test_keypoints_that_are_missing_or_too_few(cfg, register):
    register([POINTS, {}, {"keypoints": [1, 1, 2]}, CROWD])
    cfg.MODEL.KEYPOINT_ON, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = True, 2
    MetadataCatalog.get(NAME).set(keypoint_names=("a", "b"), keypoint_flip_map=())
    with pytest.raises(ValueError, match=r"MODEL.KEYPOINT_ON .*2 of the 3 objects.* 6 numbers"):
        EFPNTrainer.build_train_loader(cfg)


def test_crops_of_polygons_need_a_package(cfg, register, monkeypatch):
    register([POLYGON, RLE])
    cfg.MODEL.MASK_ON = cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.MASK_FORMAT = "bitmask"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"INPUT.CROP.ENABLED .*1 of the 2 .*install shapely"):
        EFPNTrainer.build_train_loader(cfg)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    EFPNTrainer.build_train_loader(cfg)


@pytest.mark.parametrize("sampler", ["RandomSubsetTrainingSampler", "RepeatFactorTrainingSampler"])
def test_with_any_sampler(cfg, register, sampler):
    register([POLYGON], [{}])
    cfg.MODEL.MASK_ON = True
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.REPEAT_THRESHOLD = sampler, 0.5
    with pytest.raises(ValueError, match="1 of the 2 objects"):
        EFPNTrainer.build_train_loader(cfg)


def test_a_mapper_of_ones_own_may_make_the_masks(cfg, register):
    register([{}])
    cfg.MODEL.MASK_ON = True
    (sample,) = next(iter(build_resumable_train_loader(cfg, mapper=lambda record: record)))
    assert sample["file_name"].endswith("0.png")


def test_an_image_without_objects_is_cropped_without_masks(cfg, register):
    """Of crops, boxes are made of masks, of which there are none."""
    register([RLE], [], [CROWD])
    cfg.MODEL.MASK_ON = cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    mapper = build_train_mapper(cfg)
    assert isinstance(mapper, DetectionMapper)
    numbers = [len(mapper(record)["instances"]) for record in DatasetCatalog.get(NAME)]
    assert numbers[1:] == [0, 0]
    assert mapper.recompute_boxes
