import argparse

import pytest
from detectron2.data import DatasetCatalog

from efpn_d2.data.datasets import (
    add_dataset_arguments,
    apply_dataset_arguments,
    register_datasets,
)

pytestmark = pytest.mark.fast


def parse(*argv):
    parser = argparse.ArgumentParser()
    add_dataset_arguments(parser)
    return parser.parse_args([str(word) for word in argv])


def test_train_and_test_files(catalogs, cfg, write_coco):
    classes = ("stop", "yield", "slow")
    train, images = write_coco("signs", classes)
    test, _ = write_coco("held_out", classes)
    args = parse(
        *("--train-json", train, "--train-images", images),
        *("--test-json", test, "--test-images", images),
    )
    apply_dataset_arguments(cfg, args)
    apply_dataset_arguments(cfg, args)  # as in a script that sets up twice
    assert cfg.DATASETS.TRAIN == ("signs_train",)
    assert cfg.DATASETS.TEST == ("held_out_test",)
    expected = [["signs_train", train, images], ["held_out_test", test, images]]
    assert expected == cfg.COCO_DATA.REGISTER
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == cfg.MODEL.RETINANET.NUM_CLASSES == 3
    register_datasets(cfg)
    assert len(DatasetCatalog.get("signs_train")) == 1


def test_one_file_for_both_roles(catalogs, cfg, write_coco):
    json_file, images = write_coco()
    args = parse(
        *("--train-json", json_file, "--train-images", images),
        *("--test-json", json_file, "--test-images", images),
    )
    apply_dataset_arguments(cfg, args)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("signs_train",), ("signs_test",))


def test_saved_config_is_complete(catalogs, cfg, write_coco, tmp_path):
    """What the options did can be had again from the dumped config alone."""
    json_file, images = write_coco()
    again = cfg.clone()
    apply_dataset_arguments(cfg, parse("--test-json", json_file, "--test-images", images))
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again.merge_from_file(str(tmp_path / "config.yaml"))
    assert (again.DATASETS, again.COCO_DATA) == (cfg.DATASETS, cfg.COCO_DATA)
    assert again.MODEL.ROI_HEADS.NUM_CLASSES == again.MODEL.RETINANET.NUM_CLASSES == 2
    DatasetCatalog.remove("signs_test")
    register_datasets(again)
    assert "signs_test" in DatasetCatalog.list()


def test_relative_path_means_the_working_directory(
    catalogs, cfg, write_coco, tmp_path, monkeypatch
):
    json_file, images = write_coco(folder="cwd")
    write_coco(folder="root")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path / "cwd")
    apply_dataset_arguments(cfg, parse("--train-json", "signs.json", "--train-images", "images"))
    (entry,) = cfg.COCO_DATA.REGISTER
    assert entry == ["signs_train", json_file, images]


def test_the_other_set_becomes_empty(catalogs, cfg, write_coco):
    json_file, images = write_coco()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("coco_2017_val",)
    apply_dataset_arguments(cfg, parse("--test-json", json_file, "--test-images", images))
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == ((), ("signs_test",))


def test_nothing_given_changes_nothing(cfg):
    before = cfg.clone()
    apply_dataset_arguments(cfg, parse())
    assert cfg == before


def test_json_and_images_go_together(cfg, write_coco):
    json_file, images = write_coco()
    for args in (parse("--train-json", json_file), parse("--train-images", images)):
        with pytest.raises(ValueError, match="^--train-json and --train-images must"):
            apply_dataset_arguments(cfg, args)


def test_missing_path_names_the_option(cfg, write_coco):
    _, images = write_coco()
    with pytest.raises(FileNotFoundError, match="^--test-json: 'no.json' does not exist"):
        apply_dataset_arguments(cfg, parse("--test-json", "no.json", "--test-images", images))


def test_different_classes_are_refused(catalogs, cfg, write_coco):
    train, images = write_coco("signs", ("stop", "yield"))
    test, _ = write_coco("held_out", ("yield", "stop"))
    args = parse(
        *("--train-json", train, "--train-images", images),
        *("--test-json", test, "--test-images", images),
    )
    before = cfg.clone()
    with pytest.raises(ValueError, match=r"\['stop', 'yield'\].*\['yield', 'stop'\]"):
        apply_dataset_arguments(cfg, args)
    assert cfg == before
