"""Data sets whose parts do not find each other: it is said why, and nothing is replaced."""

import json

import pytest

import prepare_dataset
from tests.data.datasets.trees import write_image

pytestmark = pytest.mark.fast


@pytest.fixture
def content(tmp_path):
    """A good COCO-format data set; its images are in ``images/sub``."""
    write_image(tmp_path / "images" / "sub" / "a.jpg")
    write_image(tmp_path / "images" / "sub" / "b.jpg")
    return {
        "images": [
            {"id": i, "file_name": f"sub/{name}.jpg", "width": 64, "height": 48}
            for i, name in enumerate("ab", start=1)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 3, "bbox": [1, 1, 9, 9]} for i in (1, 2)
        ],
        "categories": [{"id": 3, "name": "stop"}],
    }


@pytest.fixture
def prepare(tmp_path, capsys):
    """Runs the command; gives its exit code and what it says at the end."""

    def run(content, *args, images="images"):
        source = tmp_path / "signs.json"
        source.write_text(json.dumps(content))
        command = ["coco", "--source", source, "--images", tmp_path / images, "--quiet", *args]
        try:
            prepare_dataset.main([*map(str, command), "--output", str(tmp_path / "out")])
        except SystemExit as error:
            return error.code
        return None

    return run


def rename(content, change):
    for image in content["images"]:
        image["file_name"] = change(image["file_name"])


@pytest.mark.parametrize(
    ("names", "images", "words"),
    [
        (lambda name: f"images/{name}", "images", ("give that folder",)),
        (lambda name: f"data/{name}", "images", ("'data/sub/a.jpg'", "sub/a.jpg", "beginnings")),
        (lambda name: name.removeprefix("sub/"), "images", ("'a.jpg'", "sub/a.jpg", "beginnings")),
        (str.upper, "images", ("sub/a.jpg", "upper and lower case")),
        (lambda name: name.replace("/", "\\"), "images", ("backslash",)),
        (lambda name: name.replace(".jpg", ".png"), "images", ("sub/a.jpg", "endings")),
        (lambda name: f"other/x{name[4:]}", "images", ("give the right one",)),
    ],
)
def test_names_that_no_file_has(content, prepare, tmp_path, names, images, words):
    assert prepare(content) is None
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert len(before) == 3
    rename(content, names)
    message = prepare(content, images=images)
    assert "none of the 2 images" in message and content["images"][0]["file_name"] in message
    assert [word for word in words if word not in message] == []
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("image_id", "1", ("image_id", "'1'", "both numbers, or both texts")),
        ("image_id", 77, ("image_id", "77", "such as 1:")),
        ("category_id", "3", ("category_id", "'3'", "both numbers, or both texts")),
        ("category_id", 4, ("category_id", "4", "such as 3:")),
    ],
)
def test_ids_that_nothing_has(content, prepare, tmp_path, capsys, field, value, words):
    for annotation in content["annotations"]:
        annotation[field] = value
    message = prepare(content)
    assert message.startswith("error: Of signs, none of the 2 annotations")
    assert [word for word in words if word not in message] == []
    assert not (tmp_path / "out").exists()
    assert "not written" in capsys.readouterr().out


def test_objects_of_missing_images_alone(content, prepare):
    """Of two images the one with objects is missing."""
    content["annotations"] = content["annotations"][:1]
    content["images"][0]["file_name"] = "sub/A.JPG"
    message = prepare(content)
    assert "none of the 1 annotations" in message and "upper and lower case" in message


def test_bad_boxes_replace_no_good_set_either(content, prepare, tmp_path):
    """But a set that is prepared for the first time has them named in its report."""
    good = json.loads(json.dumps(content))
    for annotation in content["annotations"]:
        annotation["bbox"] = [5, 5, 0, 0]
    assert prepare(content) is None
    report = json.loads((tmp_path / "out" / "signs.report.json").read_text())
    assert report["problem_counts"] == {"empty_box": 2}
    assert prepare(good) is None
    message = prepare(content)
    assert "none of the 2 annotations" in message and "zero or negative" in message
    assert len(json.loads((tmp_path / "out" / "signs.json").read_text())["annotations"]) == 2


def test_a_set_without_annotations_is_one(content, prepare):
    content["annotations"] = []
    assert prepare(content) is None
