import json

import pytest

from efpn_d2.data.datasets.aitod import CLASS_NAMES, find_aitod, read_aitod
from efpn_d2.data.datasets.prepare import prepare
from efpn_d2.data.datasets.prepared import PreparedFiles
from efpn_d2.data.datasets.validation import Report
from tests.data.datasets.trees import kinds, write_image

pytestmark = pytest.mark.fast


def content(boxes=((10, 20, 7, 5),), classes=CLASS_NAMES, first_id=1, size=800):
    return {
        "images": [{"id": 0, "file_name": "P1.png", "width": size, "height": size}],
        "annotations": [
            {
                "id": number,
                "image_id": 0,
                "category_id": first_id + 3,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": 0,
                "ignore": 0,
                "segmentation": [],
            }
            for number, box in enumerate(boxes)
        ],
        "categories": [{"id": i, "name": n} for i, n in enumerate(classes, start=first_id)],
    }


def write(root, name="aitod_trainval_v1.json", images="trainval/images", **options):
    write_image(root / images / "P1.png", 800, 800)
    path = root / "annotations" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content(**options)))
    return path, root / images


def run(json_file, images, out):
    report = Report("set", str(json_file))
    prepare(
        read_aitod(json_file, images, report), PreparedFiles(out, "set"), report, progress=False
    )
    return json.loads((out / "set.json").read_text()), report


@pytest.mark.parametrize("images", ["trainval/images", "images/trainval", "trainval"])
@pytest.mark.parametrize("name, version", [("aitod_trainval_v1", "v1"), ("aitodv2_trainval", "v2")])
def test_both_versions_are_found_by_their_file_names(tmp_path, name, version, images):
    paths = write(tmp_path, f"{name}.json", images)
    assert find_aitod(tmp_path, None) == {(version, "trainval"): paths}
    assert find_aitod(tmp_path, version) == {(version, "trainval"): paths}


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no annotation file of AI-TOD v2"):
        find_aitod(tmp_path, "v2")
    path, _ = write(tmp_path, images="somewhere")
    with pytest.raises(FileNotFoundError, match="Those from xView have to be rebuilt"):
        find_aitod(tmp_path, "v1")


@pytest.mark.parametrize("first_id", [0, 1])
def test_a_split_stays_as_it_is_without_ignore(tmp_path, first_id):
    result, report = run(*write(tmp_path, first_id=first_id), tmp_path / "out")
    assert not report.problems
    (annotation,) = result["annotations"]
    assert annotation == {
        "id": 0,
        "image_id": 0,
        "category_id": first_id + 3,
        "bbox": [10, 20, 7, 5],
        "area": 35,
        "iscrowd": 0,
    }
    description = json.loads((tmp_path / "out" / "set.dataset.json").read_text())
    assert description["protocol"] == "aitod"
    assert description["classes"] == list(CLASS_NAMES)


def test_counts_by_the_sizes_of_tiny_objects(tmp_path):
    boxes = [(10, 20, 7, 7), (10, 20, 8, 8), (10, 20, 15, 17), (10, 20, 16, 16), (0, 0, 32, 32)]
    _, report = run(*write(tmp_path, boxes=boxes), tmp_path / "out")
    assert report.counts["by_class"]["ship"] == {
        "objects": 5,
        "0-8": 1,
        "8-16": 2,  # sqrt(8 * 8) = 8 and sqrt(15 * 17) = 15.97
        "16-32": 1,
        "32-96": 1,
        "96+": 0,
        "ignored": 0,
    }


def test_other_classes_and_sizes_are_said(tmp_path):
    classes = ("airplane", "bridge", "tank", "ship", "swimming-pool", "vehicle", "person")
    _, report = run(*write(tmp_path, classes=classes, size=640), tmp_path / "out")
    assert kinds(report) == ["image_size_mismatch", "unexpected_classes"]
    (problem,) = (f for f in report.problems if f.kind == "unexpected_classes")
    assert "['storage-tank', 'wind-mill'] are missing, ['tank'] are new" in problem.message
    assert "unexpected_image_size" in [note.kind for note in report.notes]
