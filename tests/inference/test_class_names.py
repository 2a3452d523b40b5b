import json
import logging

import pytest
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog

from efpn_d2.config import add_efpn_config
from efpn_d2.inference import find_class_names

pytestmark = pytest.mark.fast


@pytest.fixture
def cfg(tmp_path):
    """A packaged config for COCO, for a detector that was trained on two classes."""
    config = get_cfg()
    add_efpn_config(config)
    config.DATASETS.TRAIN, config.DATASETS.TEST = ("coco_2017_train",), ("coco_2017_val",)
    config.MODEL.ROI_HEADS.NUM_CLASSES = 2
    (tmp_path / "output").mkdir()
    config.MODEL.WEIGHTS = str(tmp_path / "output" / "model_final.pth")
    return config


@pytest.fixture
def signs(tmp_path):
    """A COCO JSON with two classes, as an entry of COCO_DATA.REGISTER; no images."""
    content = {"images": [], "annotations": []}
    content["categories"] = [{"id": 7, "name": "yield"}, {"id": 3, "name": "stop"}]
    (tmp_path / "signs.json").write_text(json.dumps(content))
    return ["signs_train", str(tmp_path / "signs.json"), str(tmp_path)]


def write_training(cfg, tmp_path, signs, *, test=()):
    """What a training by --train-json leaves in its folder."""
    trained = cfg.clone()
    trained.COCO_DATA.REGISTER = [signs]
    trained.DATASETS.TRAIN, trained.DATASETS.TEST = ("signs_train",), test
    (tmp_path / "output" / "config.yaml").write_text(trained.dump())


def test_names_of_another_number_are_not_taken(cfg, caplog):
    assert find_class_names(cfg) == []
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "MODEL.ROI_HEADS.NUM_CLASSES is 2" in record.getMessage()
    assert "coco_2017_val has 80 classes" in record.getMessage()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    assert find_class_names(cfg)[:2] == ["person", "bicycle"]


def test_of_a_retinanet_its_own_number_counts(cfg):
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.RETINANET.NUM_CLASSES = "EFPNRetinaNet", 80
    assert find_class_names(cfg)[0] == "person"


def test_those_of_the_training_are_found_beside_the_weights(cfg, tmp_path, signs):
    write_training(cfg, tmp_path, signs)
    assert find_class_names(cfg) == ["stop", "yield"]


def test_they_come_before_others_of_the_same_number(cfg, tmp_path, signs):
    """Of eighty classes of one's own, the first is no person."""
    write_training(cfg, tmp_path, signs)
    MetadataCatalog.get("class_names_test").thing_classes = ["a", "b"]
    try:
        cfg.DATASETS.TEST = ("class_names_test",)
        assert find_class_names(cfg) == ["stop", "yield"]
    finally:
        MetadataCatalog.remove("class_names_test")


def test_a_config_without_a_test_set_has_those_of_its_training(cfg, signs):
    cfg.COCO_DATA.REGISTER = [signs]
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("signs_train",), ()
    assert find_class_names(cfg) == ["stop", "yield"]


@pytest.mark.parametrize("text", ["MODEL: [", "MODEL: {NO_SUCH_KEY: 1}\nVERSION: 2\n", ""])
def test_a_config_that_cannot_be_read_is_passed_over(cfg, tmp_path, text):
    (tmp_path / "output" / "config.yaml").write_text(text)
    assert find_class_names(cfg) == []


def test_a_json_that_is_gone_is_named(cfg, tmp_path, signs, caplog):
    write_training(cfg, tmp_path, signs)
    (tmp_path / "signs.json").unlink()
    assert find_class_names(cfg) == []
    assert "signs.json does not exist" in caplog.records[-1].getMessage()
