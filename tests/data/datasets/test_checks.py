import pytest
from detectron2.data import MetadataCatalog

from efpn_d2.data.datasets import check_files_exist, register_coco_sets, register_datasets

pytestmark = pytest.mark.fast


@pytest.fixture
def missing_json(monkeypatch, tmp_path):
    """The JSON of a set that Detectron2 knows, where there is none."""
    json_file = str(tmp_path / "nowhere" / "val.json")
    monkeypatch.setitem(vars(MetadataCatalog.get("coco_2017_val")), "json_file", json_file)
    return json_file


def test_missing_file_of_the_evaluation_is_named_before_the_training(cfg, missing_json):
    cfg.DATASETS.TEST = ("coco_2017_val",)
    register_datasets(cfg)
    with pytest.raises(FileNotFoundError) as error:
        check_files_exist(cfg)
    message = str(error.value)
    assert message.startswith(
        f"DATASETS.TEST names 'coco_2017_val', but its file {missing_json} does not exist, which "
        "would have shown only at the evaluation: "
    )
    for way_out in (
        'set DATASETS.TEST "()"',
        "DETECTRON2_DATASETS",
        "--test-json and --test-images",
    ):
        assert way_out in message
    assert "\n" not in message


def test_what_is_not_trained_on_need_not_be_there(cfg, missing_json):
    cfg.DATASETS.TRAIN = ("coco_2017_val",)
    with pytest.raises(FileNotFoundError, match="^DATASETS.TRAIN names .* --train-json"):
        check_files_exist(cfg)
    check_files_exist(cfg, ("TEST",))


def test_synthetic_set_that_is_not_generated(catalogs, cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    cfg.DATASETS.TEST = ("synthetic_signs_native1x_val",)
    register_datasets(cfg)
    with pytest.raises(FileNotFoundError, match="run `python tools/make_synthetic.py`"):
        check_files_exist(cfg)


def test_files_that_are_there_and_addresses_pass(catalogs, cfg, write_coco, monkeypatch):
    cfg.COCO_DATA.REGISTER = [["my_signs", *write_coco()]]
    cfg.DATASETS.TRAIN = ("my_signs",)
    cfg.DATASETS.TEST = ("my_signs", "coco_2017_val", "voc_2007_test")  # VOC has no JSON
    register_coco_sets(cfg.COCO_DATA.REGISTER)
    address = "https://example.org/val.json"
    monkeypatch.setitem(vars(MetadataCatalog.get("coco_2017_val")), "json_file", address)
    assert check_files_exist(cfg) is None


@pytest.mark.parametrize("key", ["area", "iscrowd"])
def test_annotation_that_the_evaluation_cannot_read(catalogs, cfg, write_coco, key):
    json_file, image_dir = write_coco(without=(key,))
    cfg.COCO_DATA.REGISTER = [["my_signs", json_file, image_dir]]
    cfg.DATASETS.TRAIN, cfg.MODEL.ROI_HEADS.NUM_CLASSES = ("my_signs",), 2
    register_datasets(cfg)
    check_files_exist(cfg)  # training reads neither
    cfg.DATASETS.TEST = ("my_signs",)
    with pytest.raises(ValueError) as error:
        check_files_exist(cfg)
    assert str(error.value) == (
        f"Data set 'my_signs' cannot be evaluated, because '{key}' is missing in 1 of the "
        f"annotations in {json_file}, and COCO's evaluation reads it: add it, or leave the set out "
        "of DATASETS.TEST."
    )
