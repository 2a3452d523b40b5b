import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from efpn_d2.data.datasets import register_datasets
from efpn_d2.data.datasets.prepare import ProblemsFoundError, prepare
from efpn_d2.data.datasets.prepared import PreparedFiles
from efpn_d2.data.datasets.tt100k import EVALUATED_CLASSES, find_version, read_tt100k
from efpn_d2.data.datasets.validation import Report
from tests.data.datasets.trees import kinds, sign, truncate, write_image, write_tt100k

pytestmark = pytest.mark.fast

# As in the official files: the evaluated classes, and rare ones between them.
TYPES = {
    "2016": ["i1", *EVALUATED_CLASSES["2016"], "w99"],
    "2021": ["i1", *EVALUATED_CLASSES["2021"], "w99"],
}
FILES = {"2016": "annotations.json", "2021": "annotations_all.json"}


def write(root, version="2021", **splits):
    splits = {"train": {"1": [sign("pl40", 4, 4, 20, 20)]}, "test": {}, **splits}
    return write_tt100k(root, FILES[version], TYPES[version], splits)


def read(root, version="2021", split="train", **options):
    report = Report("set", str(root))
    return read_tt100k(root, version, split, report, **options), report


def names_of(coco, image_id):
    names = {category["id"]: category["name"] for category in coco["categories"]}
    members = [a for a in coco["annotations"] if a["image_id"] == image_id]
    return [names[a["category_id"]] for a in members]


def test_the_45_classes_of_each_version():
    old, new = map(set, EVALUATED_CLASSES.values())
    assert len(old) == len(new) == 45
    assert old - new == {"io", "po", "wo"}
    assert new - old == {"i2r", "i4l", "p13"}
    assert {"ph4.5", "il100", "pr40", "w59"} <= old & new


def test_boxes_are_corners_and_become_xywh(tmp_path):
    ellipse = {"ellipse_org": [[1, 2]], "ellipse": [[1, 2], [3, 4], 5.0]}
    write(tmp_path, train={"7": [sign("w99", 10.5, 4.25, 30.5, 44.75, **ellipse)]})
    raw, report = read(tmp_path)
    assert [(i["id"], i["file_name"]) for i in raw.coco["images"]] == [(7, "train/7.jpg")]
    (annotation,) = raw.coco["annotations"]
    assert annotation["bbox"] == [10.5, 4.25, 20.0, 40.5]
    assert annotation["area"] == 20.0 * 40.5
    # Ids follow the file's order of types, from 1: i1, then the 45, then w99.
    assert annotation["category_id"] == 47
    assert not report.problems


def test_train_has_all_classes_and_test45_the_objects_of_45(tmp_path):
    objects = [sign("w99", 1, 1, 9, 9), sign("pl40", 1, 1, 9, 9), sign("p13", 9, 9, 20, 20)]
    write(tmp_path, test={"2": objects, "3": [sign("i1", 1, 1, 9, 9)]})
    everything, _ = read(tmp_path, split="test")
    evaluated, _ = read(tmp_path, split="test45")
    assert names_of(everything.coco, 2) == ["w99", "pl40", "p13"]
    assert names_of(evaluated.coco, 2) == ["pl40", "p13"]
    # One model is trained on the first and evaluated on the second, so the classes are the same.
    assert evaluated.coco["categories"] == everything.coco["categories"]
    # An image without an object of the 45 still counts: what is found there is wrong.
    assert [image["id"] for image in evaluated.coco["images"]] == [2, 3]
    assert evaluated.coco["info"]["objects_of_classes_not_evaluated"] == 2
    assert evaluated.evaluated_classes == EVALUATED_CLASSES["2021"]
    assert evaluated.protocol == "tt100k"


def test_a_data_set_of_the_45_alone(tmp_path):
    write(tmp_path, train={"1": [sign("w99", 1, 1, 9, 9), sign("pl40", 1, 1, 9, 9)]})
    raw, report = read(tmp_path, only_45=True)
    assert [c["name"] for c in raw.coco["categories"]] == list(EVALUATED_CLASSES["2021"])
    assert names_of(raw.coco, 1) == ["pl40"]
    assert not report.problems


@pytest.mark.parametrize("version, other", [("2016", "2021"), ("2021", "2016")])
def test_a_version_is_known_by_its_file_and_checked_by_its_classes(tmp_path, version, other):
    write(tmp_path / "right", version)
    assert find_version(tmp_path / "right") == version
    write_tt100k(tmp_path / "wrong", FILES[version], TYPES[other], {"train": {}})
    with pytest.raises(ValueError, match=f"has the classes of TT100K {other}"):
        read(tmp_path / "wrong", version)
    write_tt100k(tmp_path / "short", FILES[version], ["pl40"], {"train": {}})
    with pytest.raises(ValueError, match="lacks the evaluated classes"):
        read(tmp_path / "short", version)


def test_both_versions_in_one_folder_have_to_be_chosen_between(tmp_path):
    write(tmp_path, "2016")
    write(tmp_path, "2021")
    with pytest.raises(ValueError, match="choose --version 2016 or 2021"):
        find_version(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither annotations.json .* nor"):
        find_version(tmp_path / "train")


def test_files_that_are_something_else(tmp_path):
    write(tmp_path)
    (tmp_path / "test" / "ids.txt").unlink()
    with pytest.raises(FileNotFoundError, match="ids.txt' is missing"):
        read(tmp_path, split="test")
    (tmp_path / FILES["2021"]).write_text('{"imgs": {"1": ')
    with pytest.raises(ValueError, match="is no JSON"):
        read(tmp_path)
    (tmp_path / FILES["2021"]).write_text('{"images": []}')
    with pytest.raises(ValueError, match="no annotation file of TT100K"):
        read(tmp_path)


def test_every_trap_is_reported_by_file_id_and_field(tmp_path):
    objects = [
        sign("pl40", 50, 40, 70, 60),  # leaves the image of 64 x 48 to the lower right
        sign("pl40", -3, 5, 7, 15),
        sign("pl40", 100, 5, 120, 25),  # outside
        sign("pl40", 9, 9, 9, 20),  # no width
        sign("pl40", 20, 20, 10, 30),  # corners swapped
        sign("xy1", 1, 1, 9, 9),  # no type of the file
        sign("pl40", float("nan"), 1, 9, 9),
        {"category": "pl40", "bbox": {"xmin": 1, "ymin": 2}},
        {"bbox": {"xmin": 1, "ymin": 1, "xmax": 5, "ymax": 5}},
        {"category": "pl40", "bbox": [1, 2, 3, 4]},  # another format's box
        sign("i1", 1, 1, 9, 9),
        sign("i1", 1, 1, 9, 9),  # the same again
        None,
    ]
    write(tmp_path, train={"1": objects})
    raw, report = read(tmp_path)
    prepare(raw, PreparedFiles(tmp_path / "out", "set"), report, progress=False)
    assert [(finding.kind, finding.id, finding.action) for finding in report.problems] == [
        ("box_leaves_image", "imgs/1/objects/0", "clipped"),
        ("box_leaves_image", "imgs/1/objects/1", "clipped"),
        ("box_outside_image", "imgs/1/objects/2", "dropped"),
        ("empty_box", "imgs/1/objects/3", "dropped"),
        ("empty_box", "imgs/1/objects/4", "dropped"),
        ("unknown_category", "imgs/1/objects/5", "dropped"),
        ("invalid_box", "imgs/1/objects/6", "dropped"),
        ("invalid_box", "imgs/1/objects/7", "dropped"),
        ("unknown_category", "imgs/1/objects/8", "dropped"),
        ("invalid_box", "imgs/1/objects/9", "dropped"),
        ("duplicate_object", "imgs/1/objects/11", "dropped"),
        ("invalid_annotation", "imgs/1/objects/12", "dropped"),
    ]
    assert all(finding.file == str(tmp_path / FILES["2021"]) for finding in report.problems)
    named = {5: ("category", "'xy1'"), 8: ("category", "it has no category"), 9: ("bbox", "xmin")}
    for number, (field, words) in named.items():
        assert report.problems[number].field == field
        assert words in report.problems[number].message
    content = json.loads((tmp_path / "out" / "set.json").read_text())
    boxes = [a["bbox"] for a in content["annotations"]]
    assert boxes == [[50, 40, 14, 8], [0, 5, 7, 10], [1, 1, 8, 8]]
    assert [a["area"] for a in content["annotations"]] == [112, 70, 64]
    assert report.read["annotations"] == len(boxes) + 10


def test_traps_of_the_lists(tmp_path):
    signs = [sign("pl40", 1, 1, 9, 9)]
    write(tmp_path, train={"1": signs, "2": signs}, test={"3": []}, other={"4": signs})
    (tmp_path / "train" / "ids.txt").write_text("1\n1\n3\n99\n")
    write_image(tmp_path / "train" / "99.jpg")
    raw, report = read(tmp_path)
    prepare(raw, PreparedFiles(tmp_path / "out", "set"), report, progress=False)
    assert kinds(report) == [
        "image_in_two_splits",  # 3 is listed in both,
        "image_in_two_splits",  # and its path is test/3.jpg
        "image_listed_twice",
        "image_without_annotations",
    ]
    (twice,) = (f for f in report.problems if f.kind == "image_listed_twice")
    assert (twice.file, twice.id) == (str(tmp_path / "train" / "ids.txt"), "1")
    notes = [(finding.kind, finding.id) for finding in report.notes]
    assert ("image_in_no_split", "2") in notes
    content = json.loads((tmp_path / "out" / "set.json").read_text())
    assert [image["id"] for image in content["images"]] == [1, 3, 99]
    assert [a["image_id"] for a in content["annotations"]] == [1]


@pytest.mark.parametrize("file", ["missing", "truncated"])
def test_an_image_without_entry_that_cannot_be_used_is_dropped_and_nothing_else(tmp_path, file):
    write(tmp_path)
    (tmp_path / "train" / "ids.txt").write_text("1\n99\n")
    if file == "truncated":
        truncate(write_image(tmp_path / "train" / "99.jpg"))
    raw, report = read(tmp_path)
    prepare(raw, PreparedFiles(tmp_path / "out", "set"), report, progress=False)
    kind = {"missing": "missing_image", "truncated": "unreadable_image"}[file]
    assert [(f.kind, f.id, f.action) for f in report.problems] == [(kind, 99, "dropped")]


def test_ids_that_have_no_order_and_lists_that_are_no_text(tmp_path):
    write(tmp_path)
    (tmp_path / "train" / "ids.txt").write_text("1\nabc\n")
    write_image(tmp_path / "train" / "abc.jpg")
    raw, report = read(tmp_path)
    with pytest.raises(ValueError, match="such as 1 and 'abc', which have no order"):
        prepare(raw, PreparedFiles(tmp_path / "out", "set"), report, progress=False)
    (tmp_path / "train" / "ids.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="ids.txt' is no text in UTF-8"):
        read(tmp_path)


def test_objects_that_are_no_list_are_named(tmp_path):
    write(tmp_path, train={"1": {"0": sign("pl40", 4, 4, 20, 20)}})
    raw, report = read(tmp_path)
    prepare(raw, PreparedFiles(tmp_path / "out", "set"), report, progress=False)
    assert [(f.kind, f.id, f.field) for f in report.problems] == [
        ("invalid_annotation", "imgs/1", "objects")
    ]
    assert "must be a list" in report.problems[0].message


def test_an_entry_that_is_there_twice_is_not_lost_silently(tmp_path):
    write(tmp_path)
    path = tmp_path / FILES["2021"]
    entry = '"1": {"id": 1, "path": "train/1.jpg", "objects": []}, '
    path.write_text(path.read_text().replace('"imgs": {', '"imgs": {' + entry))
    _, report = read(tmp_path)
    assert [(f.kind, f.id) for f in report.problems] == [("repeated_key", "1")]


def test_strict_writes_the_report_alone(tmp_path):
    write(tmp_path, train={"1": [sign("pl40", 60, 40, 70, 60)]})
    raw, report = read(tmp_path)
    files = PreparedFiles(tmp_path / "out", "set")
    with pytest.raises(ProblemsFoundError, match="set has 1 problem, all in .*set.report.json"):
        prepare(raw, files, report, strict=True, progress=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["set.report.json"]
    (problem,) = json.loads(files.report.read_text())["problems"]
    assert (problem["kind"], problem["field"]) == ("box_leaves_image", "bbox")


def test_prepared_sets_are_used_by_name(catalogs, cfg, tmp_path, monkeypatch):
    source = write(tmp_path / "source", test={"2": [sign("p13", 9, 9, 20, 20)], "3": []})
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    for split in ("train", "test45"):
        raw, report = read(source, split=split)
        prepare(raw, PreparedFiles(None, f"tt100k_2021_{split}"), report, progress=False)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("tt100k_2021_train",), ("tt100k_2021_test45",)
    with pytest.raises(ValueError, match="has 47 classes"):
        register_datasets(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 47
    register_datasets(cfg)
    metadata = MetadataCatalog.get("tt100k_2021_test45")
    assert (metadata.evaluator_type, metadata.protocol) == ("coco", "tt100k")
    assert metadata.evaluated_classes == list(EVALUATED_CLASSES["2021"])
    first, second = DatasetCatalog.get("tt100k_2021_test45")
    assert first["file_name"] == str(source / "test" / "2.jpg")
    assert (first["width"], first["height"]) == (64, 48)
    assert metadata.thing_classes[first["annotations"][0]["category_id"]] == "p13"
    assert second["annotations"] == []
