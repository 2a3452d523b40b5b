import json
import math
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from efpn_d2.data.datasets import (
    check_files_exist,
    register_coco_sets,
    register_datasets,
    suspicions,
)
from efpn_d2.data.datasets.validation import KINDS
from tests.data.datasets.trees import truncate, write_image

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


def edit(json_file, change):
    """Change a COCO JSON's only image and only annotation."""
    content = json.loads(Path(json_file).read_text())
    change(content["images"][0], content["annotations"][0])
    Path(json_file).write_text(json.dumps(content))


def register(cfg, entry, split="TEST"):
    cfg.COCO_DATA.REGISTER = [entry]
    cfg.DATASETS[split] = ("my_signs",)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    register_datasets(cfg)
    check_files_exist(cfg)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("area", None, "area None, which must be a finite number"),
        ("area", math.nan, "area nan, which must be a finite number"),
        ("iscrowd", None, "iscrowd None, which must be 0 or 1"),
        ("visdrone_score", "1", "visdrone_score '1', which must be a finite number"),
    ],
)
def test_values_that_the_evaluation_cannot_read(catalogs, cfg, write_coco, field, value, words):
    """In the words of the evaluation itself, which would say them after the training."""
    json_file, image_dir = write_coco()
    edit(json_file, lambda _, annotation: annotation.update({field: value}))
    with pytest.raises(ValueError) as error:
        register(cfg, ["my_signs", json_file, image_dir])
    assert f"annotations[0] of {json_file} has the {words}" in str(error.value)


def test_an_area_that_is_only_trained_on_may_be_missing(catalogs, cfg, write_coco):
    json_file, image_dir = write_coco()
    edit(json_file, lambda _, annotation: annotation.update(area=None))
    register(cfg, ["my_signs", json_file, image_dir], "TRAIN")
    cfg.DATASETS.TEST = ("my_signs",)
    with pytest.raises(ValueError, match="area None"):
        check_files_exist(cfg)
    (record,) = DatasetCatalog.get("my_signs")
    assert len(record["annotations"]) == 1


def test_ids_of_two_kinds_have_no_order(catalogs, cfg, write_coco):
    json_file, image_dir = write_coco()
    content = json.loads(Path(json_file).read_text())
    content["images"].append({**content["images"][0], "id": "2"})
    Path(json_file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"'{json_file}' .* such as 1 and '2', .* no order"):
        register(cfg, ["my_signs", json_file, image_dir], "TRAIN")


def test_annotations_of_none_of_the_images(catalogs, cfg, write_coco):
    """As where the ids of one are numbers and of the other texts."""
    json_file, image_dir = write_coco()
    edit(json_file, lambda _, annotation: annotation.update(image_id="1"))
    with pytest.raises(ValueError, match=r"of the 1 annotations .*such as '1', .* such as 1;"):
        register(cfg, ["my_signs", json_file, image_dir], "TRAIN")


def break_image(image_dir, how):
    """Make the image, of which the JSON says 8 x 8 pixels, one that cannot be used."""
    path = Path(image_dir) / "a.jpg"
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        truncate(write_image(path, 64, 64))
    elif how == "16 bits":
        Image.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(path, format="PNG")
    elif how == "other size":
        write_image(path, 8, 9)
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        write_image(path, 8, 12, exif=exif)


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("missing", "missing_image"),
        ("truncated", "unreadable_image"),
        ("16 bits", "image_16_bit"),
        ("other size", "image_size_mismatch"),
        ("rotated", "rotated_image"),
    ],
)
def test_images_that_cannot_be_used(catalogs, cfg, write_coco, split, how, kind):
    json_file, image_dir = write_coco()
    break_image(image_dir, how)
    height = 12 if how == "rotated" else 8
    edit(json_file, lambda image, _: image.update(height=height))
    with pytest.raises(ValueError) as error:
        register(cfg, ["my_signs", json_file, image_dir], split)
    message = str(error.value)
    assert f"({KINDS[kind]}: 1, such as 'a.jpg', " in message and "'my_signs'" in message
    assert "tools/prepare_dataset.py" in message and "\n" not in message
    if how == "rotated":
        assert "said to be 8 x 12" in message and "12 x 8, by its EXIF orientation 6" in message


def test_a_backslash_is_pointed_out(catalogs, cfg, write_coco):
    json_file, image_dir = write_coco()
    edit(json_file, lambda image, _: image.update(file_name="sub\\a.jpg"))
    with pytest.raises(ValueError, match=r"'sub\\a.jpg', .* backslash"):
        register(cfg, ["my_signs", json_file, image_dir])


def test_a_strip_that_scaling_would_leave_nothing_of(catalogs, cfg, write_coco):
    json_file, image_dir = write_coco()
    write_image(Path(image_dir) / "a.jpg", 5000, 1)
    edit(json_file, lambda image, _: image.update(width=5000, height=1))
    with pytest.raises(ValueError, match=r"too narrow .*'a.jpg', of its 5000 x 1 pixels"):
        register(cfg, ["my_signs", json_file, image_dir])
    cfg.INPUT.MAX_SIZE_TEST = 5000
    check_files_exist(cfg)


def test_what_is_not_read_is_not_checked(catalogs, cfg, write_coco):
    """Images without an object are left out of a training, unless the config says otherwise."""
    json_file, image_dir = write_coco()
    content = json.loads(Path(json_file).read_text())
    content["images"].append({"id": 2, "file_name": "none.jpg", "width": 8, "height": 8})
    Path(json_file).write_text(json.dumps(content))
    register(cfg, ["my_signs", json_file, image_dir], "TRAIN")
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    with pytest.raises(ValueError, match=r"Of the 2 images .*: 1, such as 'none.jpg'"):
        check_files_exist(cfg)


@pytest.mark.parametrize(
    ("key", "fields", "expected"),
    [
        ("MASK_ON", {}, "have no segmentation"),
        ("MASK_ON", {"segmentation": []}, "have no segmentation"),
        ("MASK_ON", {"segmentation": [[1, 1, 5, 1, 5, 5]]}, None),
        ("KEYPOINT_ON", {"keypoints": [2, 2, 2]}, "have no keypoints or num_keypoints"),
        ("KEYPOINT_ON", {"keypoints": [2, 2, 2], "num_keypoints": 1}, None),
    ],
)
def test_masks_and_keypoints_to_evaluate(catalogs, cfg, write_coco, key, fields, expected):
    json_file, image_dir = write_coco()
    edit(json_file, lambda _, annotation: annotation.update(fields))
    content = json.loads(Path(json_file).read_text())
    content["categories"][0]["keypoints"] = ["tip"]
    Path(json_file).write_text(json.dumps(content))
    cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS, cfg.TEST.KEYPOINT_OKS_SIGMAS = 1, [0.1]
    entry = ["my_signs", json_file, image_dir]
    register(cfg, entry)
    cfg.MODEL[key] = True
    if expected is None:
        register(cfg, entry)
        return
    with pytest.raises(ValueError, match=f"MODEL.{key}.* 1 of the 1 annotations .*{expected}"):
        register(cfg, entry)
    if key == "MASK_ON":
        cfg.EVALUATION.PROTOCOL = "tt100k"  # which evaluates boxes alone
        register(cfg, entry)


def test_boxes_that_look_like_corners_are_a_warning(catalogs, cfg, write_coco):
    json_file, image_dir = write_coco()
    content = json.loads(Path(json_file).read_text())
    content["annotations"] = [
        {**content["annotations"][0], "id": i, "bbox": [3, 3, 7, 7]} for i in range(3)
    ]
    Path(json_file).write_text(json.dumps(content))
    register(cfg, ["my_signs", json_file, image_dir], "TRAIN")
    (warning,) = suspicions(cfg)
    assert "'my_signs'" in warning and json_file in warning and "XYXY" in warning
