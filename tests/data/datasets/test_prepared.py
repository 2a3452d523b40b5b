import shutil

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from efpn_d2.data.datasets import register_coco_sets, register_synthetic
from efpn_d2.data.datasets.prepared import PreparedFiles, register_prepared, write_prepared
from efpn_d2.data.datasets.validation import Report, clean_coco
from efpn_d2.data.image_annotations import load_records
from tests.data.datasets.trees import write_image

pytestmark = pytest.mark.fast


@pytest.fixture
def prepare_set(tmp_path):
    """Writes a data set of one image and box to ``tmp_path / root / prepared``."""

    def write(root="root", name="signs", **options):
        images = tmp_path / root / "signs"
        write_image(images / "a.jpg")
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}
        content = {
            "images": [{"id": 1, "file_name": "a.jpg"}],
            "annotations": [box | {"area": 16, "iscrowd": 0}],
            "categories": [{"id": 1, "name": "stop"}],
        }
        report = Report(name, "test")
        coco = clean_coco(content, images, report, progress=False)
        files = PreparedFiles(tmp_path / root / "prepared", name)
        write_prepared(files, coco, report, image_root=images, **options)
        return files

    return write


def test_a_prepared_set_follows_the_environment(catalogs, prepare_set, tmp_path, monkeypatch):
    assert not register_prepared("signs")
    for root in ("one", "two"):
        prepare_set(root)
        monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / root))
        assert register_prepared("signs")
        assert register_prepared("signs")
        (record,) = DatasetCatalog.get("signs")
        assert record["file_name"] == str(tmp_path / root / "signs" / "a.jpg")
    assert MetadataCatalog.get("signs").get("evaluated_classes") is None


def test_records_of_a_prepared_set_by_its_name(catalogs, prepare_set, tmp_path, monkeypatch):
    prepare_set()
    with pytest.raises(ValueError, match="neither a COCO JSON nor the name"):
        load_records("signs")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root"))
    assert len(load_records("signs")) == 1


def test_a_moved_tree_is_still_found(catalogs, prepare_set, tmp_path, monkeypatch):
    prepare_set("before")
    shutil.move(tmp_path / "before", tmp_path / "after")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "after"))
    assert register_prepared("signs")
    assert MetadataCatalog.get("signs").image_root == str(tmp_path / "after" / "signs")


def test_moved_files_still_find_their_images(catalogs, prepare_set, tmp_path, monkeypatch):
    prepare_set()
    shutil.move(tmp_path / "root" / "prepared", tmp_path / "a" / "b" / "prepared")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "a" / "b"))
    assert register_prepared("signs")
    assert MetadataCatalog.get("signs").image_root == str(tmp_path / "root" / "signs")


def test_missing_images_are_said(catalogs, prepare_set, tmp_path, monkeypatch):
    prepare_set()
    shutil.rmtree(tmp_path / "root" / "signs")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root"))
    with pytest.raises(FileNotFoundError, match="The images of data set 'signs' are neither in"):
        register_prepared("signs")


def test_other_sets_of_the_same_name_stay(catalogs, prepare_set, tmp_path, monkeypatch):
    prepare_set(name="coco_2017_val")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root"))
    before = MetadataCatalog.get("coco_2017_val").json_file
    assert not register_prepared("coco_2017_val")
    assert MetadataCatalog.get("coco_2017_val").json_file == before


def test_the_protocol_comes_along_however_a_set_is_registered(catalogs, prepare_set, write_coco):
    files = prepare_set(protocol="visdrone", evaluated_classes=["stop"])
    register_coco_sets([["mine", str(files.json_file), str(files.folder)]])
    assert MetadataCatalog.get("mine").protocol == "visdrone"
    assert MetadataCatalog.get("mine").evaluated_classes == ["stop"]
    register_coco_sets([["other", *write_coco()]])
    assert MetadataCatalog.get("other").protocol == "coco"
    register_synthetic()
    assert MetadataCatalog.get("synthetic_signs_native1x_val").protocol == "coco"


def test_nothing_is_left_of_an_interrupted_write(prepare_set, tmp_path, monkeypatch):
    from efpn_d2.data.datasets import files as files_module

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files_module.os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare_set()
    monkeypatch.undo()
    assert list(tmp_path.rglob("prepared/*")) == []
    files = prepare_set()
    assert sorted(path.name for path in files.folder.iterdir()) == [
        "signs.dataset.json",
        "signs.json",
        "signs.report.json",
    ]
