import json

import pytest
from detectron2.data.datasets import load_coco_json

from efpn_d2.data.datasets.prepare import prepare
from efpn_d2.data.datasets.prepared import PreparedFiles
from efpn_d2.data.datasets.validation import Report
from efpn_d2.data.datasets.visdrone import CLASS_NAMES, find_split, read_visdrone
from tests.data.datasets.trees import kinds, truncate, write_image

pytestmark = pytest.mark.fast


def write(root, images: dict[str, str], split="train"):
    """A split with the annotation lines of each image of 64 x 48 pixels."""
    folder = root / f"VisDrone2019-DET-{split}"
    (folder / "annotations").mkdir(parents=True)
    for name, lines in images.items():
        write_image(folder / "images" / f"{name}.jpg")
        (folder / "annotations" / f"{name}.txt").write_text(lines)
    return folder


def run(folder, tmp_path):
    report = Report("set", str(folder))
    files = PreparedFiles(tmp_path / "out", "set")
    prepare(read_visdrone(folder, report), files, report, progress=False)
    return json.loads(files.json_file.read_text()), report


def test_evaluated_objects_keep_their_fields(tmp_path):
    folder = write(tmp_path, {"a": "10,20,5,6,1,4,0,2\n1,2,3,4,1,10,1,0,\n"})  # a trailing comma
    content, report = run(folder, tmp_path)
    assert not report.problems
    assert content["categories"][3] == {"id": 4, "name": "car"}
    assert [c["id"] for c in content["categories"]] == list(range(1, 11))
    first, second = content["annotations"]
    assert first == {
        "id": 1,
        "image_id": 1,
        "category_id": 4,
        "bbox": [10, 20, 5, 6],
        "area": 30,
        "iscrowd": 0,
        "visdrone_line": 1,
        "visdrone_category": 4,
        "visdrone_score": 1,
        "truncation": 0,
        "occlusion": 2,
    }
    assert (second["category_id"], second["truncation"], second["visdrone_line"]) == (10, 1, 2)


def test_what_is_ignored_is_crowd_and_never_ignore(tmp_path):
    lines = "0,0,30,20,0,0,0,0\n40,5,9,9,1,11,0,0\n10,30,5,6,0,4,0,0\n20,30,5,6,1,4,0,0\n"
    content, report = run(write(tmp_path, {"a": lines}), tmp_path)
    assert not report.problems
    assert not any("ignore" in annotation for annotation in content["annotations"])
    by_line = {line: [] for line in (1, 2, 3, 4)}
    for annotation in content["annotations"]:
        by_line[annotation["visdrone_line"]].append(annotation)
    # An ignored region and "others" are ignored for every class, a score of 0 for its own alone.
    for line, category in ((1, 0), (2, 11)):
        assert [a["category_id"] for a in by_line[line]] == list(range(1, 11))
        assert all(a["iscrowd"] == 1 for a in by_line[line])
        assert all(a["visdrone_category"] == category for a in by_line[line])
    assert [(a["category_id"], a["iscrowd"]) for a in by_line[3]] == [(4, 1)]
    assert [(a["category_id"], a["iscrowd"]) for a in by_line[4]] == [(4, 0)]
    ids = [a["id"] for a in content["annotations"]]
    assert ids == list(range(1, 23))
    assert report.counts["total"]["objects"] == 1
    assert report.counts["total"]["ignored"] == 3
    assert report.counts["by_class"]["car"]["ignored"] == 3
    assert report.counts["by_class"]["bus"]["ignored"] == 2


def test_the_loader_of_detectron2_takes_it(catalogs, tmp_path):
    lines = "0,0,30,20,0,0,0,0\n20,30,5,6,1,4,0,0\n"
    folder = write(tmp_path, {"a": lines, "b": ""})
    run(folder, tmp_path)
    json_file = str(tmp_path / "out" / "set.json")
    first, second = load_coco_json(json_file, str(folder / "images"), "set")
    assert sum(a["iscrowd"] == 0 for a in first["annotations"]) == 1
    assert second["annotations"] == []


def test_every_trap_is_reported_by_file_and_line(tmp_path):
    lines = [
        "10,10,0,6,1,4,0,0",  # as in the official training set
        "60,40,10,10,1,4,0,0",
        "70,10,5,5,1,4,0,0",
        "1,2,3,4,1,12,0,0",
        "1,2,3,4,1,4,0",
        "1,2,x,4,1,4,0,0",
        "1,2,nan,4,1,4,0,0",
        "-5,-5,30,30,0,0,0,0",  # an ignored region is reported once, not once per class
        "",
        "5,5,9,9,1,1,0,0",
        "20,5,9,9,nan,1,0,0",
        "5,5,9,9,1,1,0,2",  # line 10 again
    ]
    folder = write(tmp_path, {"a": "\n".join(lines)})
    content, report = run(folder, tmp_path)
    assert sorted((f.id, f.kind, f.action) for f in report.problems) == [
        (1, "empty_box", "dropped"),
        (2, "box_leaves_image", "clipped"),
        (3, "box_outside_image", "dropped"),
        (4, "unknown_category", "dropped"),
        (5, "invalid_annotation", "dropped"),
        (6, "invalid_annotation", "dropped"),
        (7, "invalid_box", "dropped"),
        (8, "box_leaves_image", "clipped"),
        (11, "invalid_annotation", "dropped"),
        (12, "duplicate_object", "dropped"),
    ]
    messages = {f.id: f.message for f in report.problems}
    assert "score is nan" in messages[11]
    assert "w is 'x'" in messages[6]
    assert "the same object as id 10" in messages[12]
    assert report.read["annotations"] == 11
    assert {f.file for f in report.problems} == {str(folder / "annotations" / "a.txt")}
    kept = {a["visdrone_line"]: a["bbox"] for a in content["annotations"]}
    assert kept == {2: [60, 40, 4, 8], 8: [0, 0, 25, 25], 10: [5, 5, 9, 9]}


def test_images_and_texts_without_each_other(tmp_path):
    folder = write(tmp_path, {"a": "5,5,9,9,1,1,0,0\n", "b": "", "c": "5,5,9,9,1,1,0,0\n"})
    (folder / "annotations" / "a.txt").unlink()
    (folder / "images" / "c.jpg").unlink()
    content, report = run(folder, tmp_path)
    assert kinds(report) == ["image_without_annotations", "missing_image"]
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.jpg"]
    assert [(f.kind, f.file) for f in report.notes[:2]] == [
        ("empty_image", "a.jpg"),
        ("empty_image", "b.jpg"),
    ]


def test_ignored_regions_stay_by_what_they_are(tmp_path):
    """The same box ignored for two reasons, and an object on it, are three things."""
    lines = "5,5,9,9,0,0,0,0\n5,5,9,9,1,11,0,0\n5,5,9,9,0,1,0,0\n5,5,9,9,1,1,0,0\n"
    content, report = run(write(tmp_path, {"a": lines}), tmp_path)
    assert not report.problems
    assert {a["visdrone_category"] for a in content["annotations"]} == {0, 1, 11}
    assert len(content["annotations"]) == 22


def test_an_image_whose_lines_were_dropped_says_so(tmp_path):
    folder = write(tmp_path, {"a": "1,2,3\n", "b": "1,2,0,4,1,4,0,0\n1,2,3,4,1,99,0,0\n"})
    _, report = run(folder, tmp_path)
    messages = {note.file: note.message for note in report.notes if note.kind == "empty_image"}
    assert messages == {
        "a.jpg": "its only annotation was dropped: id 1 (invalid_annotation)",
        "b.jpg": "all its 2 annotations were dropped: id 1 (empty_box), id 2 (unknown_category)",
    }


def test_an_image_without_text_that_cannot_be_read_is_dropped_and_nothing_else(tmp_path):
    folder = write(tmp_path, {"a": "", "b": ""})
    (folder / "annotations" / "a.txt").unlink()
    truncate(folder / "images" / "a.jpg")
    _, report = run(folder, tmp_path)
    assert [(f.kind, f.action) for f in report.problems] == [("unreadable_image", "dropped")]


def test_a_text_that_is_none_is_named(tmp_path):
    folder = write(tmp_path, {"a": "5,5,9,9,1,1,0,0\n", "b": ""})
    (folder / "annotations" / "b.txt").write_bytes(b"\xff\xfe\x00")
    content, report = run(folder, tmp_path)
    (problem,) = report.problems
    assert (problem.kind, problem.action) == ("invalid_annotation", "dropped")
    assert problem.file == str(folder / "annotations" / "b.txt")
    assert "is no text in UTF-8 (byte 0)" in problem.message
    assert len(content["annotations"]) == 1
    assert report.notes[0].message == (
        f"its only annotation was dropped: {problem.file} (invalid_annotation)"
    )


def test_splits_are_found_and_test_challenge_is_refused(tmp_path):
    folder = write(tmp_path, {"a": ""}, "test-dev")
    assert find_split(tmp_path, "test-dev") == folder
    assert find_split(folder, "test-dev") == folder
    assert find_split(tmp_path, "val") is None
    challenge = tmp_path / "VisDrone2019-DET-test-challenge"
    write_image(challenge / "images" / "a.jpg")
    with pytest.raises(FileNotFoundError, match="test-challenge has no annotations"):
        read_visdrone(challenge, Report("set", "x"))


def test_ten_classes():
    assert len(CLASS_NAMES) == 10
    assert (CLASS_NAMES[0], CLASS_NAMES[7], CLASS_NAMES[9]) == (
        "pedestrian",
        "awning-tricycle",
        "motor",
    )
