import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from efpn_d2.data.coco.keypoints import keypoint_metadata
from efpn_d2.data.datasets import register_coco_sets, register_datasets
from efpn_d2.data.datasets.prepared import PreparedFiles, register_prepared, write_prepared
from efpn_d2.data.mappers import build_train_mapper
from efpn_d2.data.validation import ValidationReport

pytestmark = pytest.mark.fast

NAMES = ["left_eye", "nose", "right_eye"]
# In pixels of the file, which is 40 px wide: the eyes at 8 and 20, the nose at 14.
KEYPOINTS = [8, 10, 2, 14, 12, 2, 20, 10, 1]


@pytest.fixture
def write(tmp_path):
    """Writes a COCO JSON with keypoints and its image."""

    def to_file(*names_of_classes):
        Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(tmp_path / "a.png")
        categories = [{"id": i, "name": f"class {i}"} for i in range(1, len(names_of_classes) + 1)]
        for category, names in zip(categories, names_of_classes, strict=True):
            category.update({"keypoints": names} if names is not None else {})
        annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20]}
        annotation |= {"area": 400, "iscrowd": 0, "keypoints": KEYPOINTS, "num_keypoints": 3}
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
            "annotations": [annotation],
            "categories": categories,
        }
        (tmp_path / "faces.json").write_text(json.dumps(content))
        return ["faces", str(tmp_path / "faces.json"), str(tmp_path)]

    return to_file


def configure(cfg, entry, num_classes=1):
    cfg.COCO_DATA.REGISTER = [entry]
    cfg.DATASETS.TRAIN = ("faces",)
    cfg.MODEL.KEYPOINT_ON = True
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 3
    return cfg


def test_coco_persons_have_detectron2s_own_names_and_pairs():
    stock = MetadataCatalog.get("keypoints_coco_2017_train")
    assert keypoint_metadata(stock.keypoint_names) == {
        "keypoint_names": tuple(stock.keypoint_names),
        "keypoint_flip_map": tuple(stock.keypoint_flip_map),
    }


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["eye_left", "eye_right"], (("eye_left", "eye_right"),)),
        (["RightHand", "LeftHand"], (("LeftHand", "RightHand"),)),
        (["left_wing", "tail"], ()),
        (["top", "bottom"], ()),
    ],
)
def test_pairs_by_name(names, pairs):
    assert keypoint_metadata(names)["keypoint_flip_map"] == pairs


def test_a_mirrored_image_swaps_left_and_right(catalogs, cfg, write):
    """By hand, in an input of twice the size: x becomes 80 - 2 (x + 0.5), of the pixel's centre."""
    configure(cfg, write(NAMES))
    register_datasets(cfg)
    metadata = MetadataCatalog.get("faces")
    assert metadata.keypoint_names == tuple(NAMES)
    assert metadata.keypoint_flip_map == (("left_eye", "right_eye"),)
    cfg.INPUT.MIN_SIZE_TRAIN = (60,)
    (record,) = DatasetCatalog.get("faces")
    found = set()
    for _ in range(20):  # mirrored or not, at random
        points = build_train_mapper(cfg)(record)["instances"].gt_keypoints.tensor[0]
        found.add(tuple(map(tuple, points.tolist())))
    assert found == {
        ((17, 21, 2), (29, 25, 2), (41, 21, 1)),
        ((39, 21, 1), (51, 25, 2), (63, 21, 2)),
    }


def test_classes_without_keypoints_do_not_count(catalogs, cfg, write):
    configure(cfg, write(NAMES, None, [], NAMES), num_classes=4)
    register_datasets(cfg)
    assert MetadataCatalog.get("faces").keypoint_names == tuple(NAMES)


@pytest.mark.parametrize(
    ("classes", "opts", "words"),
    [
        ((None,), [], ("MODEL.KEYPOINT_ON", "'faces'", "faces.json")),
        ((NAMES, NAMES[:2]), [], ("MODEL.KEYPOINT_ON", "'faces'", "faces.json")),
        ((NAMES,), ["MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 17], ("NUM_KEYPOINTS is 17", "to 3")),
        (
            (NAMES,),
            ["DATASETS.TEST", "('faces',)"],
            ("TEST.KEYPOINT_OKS_SIGMAS has 0", "3 keypoints", "COCO's 17"),
        ),
    ],
)
def test_what_does_not_fit_is_said_before_the_training(catalogs, cfg, write, classes, opts, words):
    configure(cfg, write(*classes), len(classes)).merge_from_list(opts)
    with pytest.raises(ValueError) as error:
        register_datasets(cfg)
    assert [word for word in words if word not in str(error.value)] == []
    cfg.MODEL.KEYPOINT_ON = False
    register_datasets(cfg)


def test_sigmas_of_ones_own_take_the_place_of_cocos_17(catalogs, cfg, write):
    configure(cfg, write(NAMES)).DATASETS.TEST = ("faces",)
    with pytest.raises(ValueError, match="3 keypoints, but TEST.KEYPOINT_OKS_SIGMAS has 0"):
        register_datasets(cfg)
    cfg.TEST.KEYPOINT_OKS_SIGMAS = [0.1, 0.1, 0.1]
    register_datasets(cfg)
    assert MetadataCatalog.get("faces").keypoint_names == tuple(NAMES)


def test_a_prepared_set_keeps_them(catalogs, write, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    _, json_file, images = write(NAMES)
    content = json.loads(Path(json_file).read_text())
    files = PreparedFiles(None, "prepared_faces")
    write_prepared(
        files, content, ValidationReport("prepared_faces", json_file), image_root=Path(images)
    )
    assert register_prepared("prepared_faces")
    metadata = MetadataCatalog.get("prepared_faces")
    assert metadata.keypoint_names == tuple(NAMES)
    # By its file, it is the same set.
    register_coco_sets([["by_file", str(files.json_file), images]])
    assert MetadataCatalog.get("by_file").keypoint_flip_map == metadata.keypoint_flip_map
    assert "keypoint_names" not in _metadata_without_keypoints(files)


def _metadata_without_keypoints(files):
    """Of a set that an earlier version has prepared."""
    description = json.loads(files.description.read_text())
    description.pop("keypoints")
    files.description.write_text(json.dumps(description))
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.remove("prepared_faces")
    register_prepared("prepared_faces")
    return MetadataCatalog.get("prepared_faces").as_dict()
