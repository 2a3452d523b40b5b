import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from efpn_d2.data.datasets import register_coco_sets, register_datasets, register_synthetic
from efpn_d2.data.synthetic import CLASS_NAMES, SyntheticConfig, generate_synthetic

pytestmark = pytest.mark.fast

SYNTHETIC_NAMES = {
    f"synthetic_signs_native{scale}x_{split}" for scale in (1, 2) for split in ("train", "val")
}


def new_names(before):
    return set(DatasetCatalog.list()) - before


def test_register_synthetic_is_lazy_and_idempotent(catalogs, tmp_path):
    before = set(DatasetCatalog.list())
    register_synthetic(str(tmp_path))
    assert new_names(before) == SYNTHETIC_NAMES
    metadata = MetadataCatalog.get("synthetic_signs_native1x_val")
    folder = tmp_path / "synthetic_signs" / "native1x"
    assert metadata.json_file == str(folder / "annotations" / "val.json")
    assert metadata.image_root == str(folder / "val")
    assert metadata.evaluator_type == "coco"
    assert metadata.thing_classes == list(CLASS_NAMES)
    register_synthetic(str(tmp_path))
    assert MetadataCatalog.get("synthetic_signs_native1x_val") is metadata


def test_synthetic_sets_load_once_generated(catalogs, tmp_path):
    name = "synthetic_signs_native1x_train"
    register_synthetic(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"^Dataset '{name}' .*make_synthetic"):
        DatasetCatalog.get(name)
    config = SyntheticConfig(
        variant="native1x", num_images=3, student_size=64, max_size=20.0, empty_fraction=0.0
    )
    generate_synthetic(config, str(tmp_path), workers=1, progress=False)
    records = DatasetCatalog.get(name)
    assert [record["width"] for record in records] == [64] * 3
    assert {entry["category_id"] for record in records for entry in record["annotations"]} <= set(
        range(8)
    )


def test_synthetic_sets_follow_the_environment(catalogs, tmp_path, monkeypatch):
    for folder in ("one", "two"):
        monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / folder))
        register_synthetic()
        json_file = MetadataCatalog.get("synthetic_signs_native2x_train").json_file
        assert json_file.startswith(str(tmp_path / folder))


def test_coco_set_by_absolute_path(catalogs, write_coco):
    json_file, image_dir = write_coco()
    register_coco_sets([["my_signs", json_file, image_dir]])
    register_coco_sets([("my_signs", json_file, image_dir)])
    (record,) = DatasetCatalog.get("my_signs")
    assert record["file_name"] == f"{image_dir}/a.jpg"
    assert MetadataCatalog.get("my_signs").thing_classes == ["stop", "yield"]


def test_relative_paths_prefer_the_data_set_folder(catalogs, write_coco, tmp_path, monkeypatch):
    in_root, _ = write_coco(folder="root/mine")
    in_cwd, _ = write_coco(folder="cwd/mine")
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root"))
    register_coco_sets([["from_root", "mine/signs.json", "mine/images"]])
    assert MetadataCatalog.get("from_root").json_file == in_root
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nothing"))
    register_coco_sets([["from_cwd", "mine/signs.json", "mine/images"]])
    assert MetadataCatalog.get("from_cwd").json_file == in_cwd


def test_missing_file_names_the_key_and_the_places(catalogs, write_coco, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data/sets")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        register_coco_sets([["my_signs", "no/such.json", "images"]])
    message = str(error.value)
    assert message.startswith("COCO_DATA.REGISTER: 'no/such.json' of dataset 'my_signs'")
    assert "/data/sets/no/such.json" in message
    assert str(tmp_path / "no" / "such.json") in message
    json_file, _ = write_coco()
    with pytest.raises(FileNotFoundError, match="COCO_DATA.REGISTER: 'nowhere'"):
        register_coco_sets([["my_signs", json_file, "nowhere"]])
    assert "my_signs" not in DatasetCatalog.list()


def test_one_name_for_two_files_is_refused(catalogs, write_coco):
    json_file, image_dir = write_coco()
    other, _ = write_coco(name="other")
    register_coco_sets([["my_signs", json_file, image_dir]])
    with pytest.raises(ValueError, match="cannot register 'my_signs'.*choose another name"):
        register_coco_sets([["my_signs", other, image_dir]])
    with pytest.raises(ValueError, match="cannot register 'coco_2017_val'"):
        register_coco_sets([["coco_2017_val", json_file, image_dir]])


@pytest.mark.parametrize("entry", ["abc", ["a", "b"], ["a", "b", 3], ["", "b", "c"]])
def test_malformed_entry(entry):
    with pytest.raises(ValueError, match="^COCO_DATA.REGISTER must be a list of"):
        register_coco_sets([entry])


def test_register_datasets_by_config(catalogs, cfg, write_coco):
    json_file, image_dir = write_coco()
    cfg.COCO_DATA.REGISTER = [["my_signs", json_file, image_dir]]
    cfg.DATASETS.TRAIN = ("my_signs",)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.freeze()
    before = set(DatasetCatalog.list())
    register_datasets(cfg)
    register_datasets(cfg)
    assert new_names(before) == {"my_signs"}


def test_register_datasets_registers_synthetic_sets_when_named(catalogs, cfg):
    before = set(DatasetCatalog.list())
    cfg.DATASETS.TEST = ("coco_2017_val",)
    register_datasets(cfg)
    assert new_names(before) == set()
    cfg.DATASETS.TEST = ("synthetic_signs_native1x_val",)
    register_datasets(cfg)  # not generated: its classes are not checked yet
    assert new_names(before) == SYNTHETIC_NAMES


@pytest.mark.parametrize("key, option", [("TRAIN", "--train-json"), ("TEST", "--test-json")])
def test_unknown_name_says_what_can_be_done(catalogs, cfg, key, option):
    cfg.DATASETS[key] = ("my_sgins",)
    with pytest.raises(ValueError, match=f"^DATASETS.{key} names 'my_sgins'") as error:
        register_datasets(cfg)
    for way_out in ("COCO_DATA.REGISTER", option, "synthetic_signs_native"):
        assert way_out in str(error.value)


def test_forgotten_config_node():
    from detectron2.config import get_cfg

    with pytest.raises(ValueError, match="add_efpn_config"):
        register_datasets(get_cfg())


@pytest.mark.parametrize(
    "architecture, key",
    [
        ("GeneralizedRCNN", "MODEL.ROI_HEADS.NUM_CLASSES"),
        ("RetinaNet", "MODEL.RETINANET.NUM_CLASSES"),
    ],
)
def test_wrong_number_of_classes_names_the_key(catalogs, cfg, write_coco, architecture, key):
    cfg.COCO_DATA.REGISTER = [["my_signs", *write_coco()]]
    cfg.DATASETS.TEST = ("my_signs",)
    cfg.MODEL.META_ARCHITECTURE = architecture
    expected = f"Dataset 'my_signs' has 2 classes, but {key} is 80: set {key} to 2."
    with pytest.raises(ValueError) as error:
        register_datasets(cfg)
    assert str(error.value) == expected
    cfg.merge_from_list([key, 2])
    register_datasets(cfg)


def test_a_training_set_that_is_not_used_is_not_checked(catalogs, cfg, write_coco):
    cfg.COCO_DATA.REGISTER = [["my_signs", *write_coco()]]
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("my_signs",), ()
    register_datasets(cfg, ("TEST",))
    with pytest.raises(ValueError, match="NUM_CLASSES"):
        register_datasets(cfg)


def test_class_agnostic_model_is_not_checked(catalogs, cfg, write_coco):
    cfg.COCO_DATA.REGISTER = [["my_signs", *write_coco()]]
    cfg.DATASETS.TEST = ("my_signs",)
    with pytest.raises(ValueError, match="NUM_CLASSES"):
        register_datasets(cfg)
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    register_datasets(cfg)
    assert "my_signs" in DatasetCatalog.list()


def test_file_that_is_no_coco_json(catalogs, cfg, write_coco, tmp_path):
    _, image_dir = write_coco()
    for content in ("[1, 2]", '{"images": []}', '{"images"'):
        (tmp_path / "broken.json").write_text(content)
        cfg.COCO_DATA.REGISTER = [["broken", str(tmp_path / "broken.json"), image_dir]]
        cfg.DATASETS.TEST = ("broken",)
        with pytest.raises(ValueError, match="broken.json .*COCO JSON"):
            register_datasets(cfg)
