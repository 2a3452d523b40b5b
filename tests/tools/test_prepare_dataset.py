"""The command line, on small data sets in the formats that they are distributed in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import prepare_dataset
from efpn_d2.data.datasets.tt100k import EVALUATED_CLASSES
from tests.data.datasets.trees import sign, write_image, write_tt100k

pytestmark = pytest.mark.fast

TOOL = Path(prepare_dataset.__file__)


@pytest.fixture
def tt100k(tmp_path):
    splits = {
        "train": {"1": [sign("pl40", 4, 4, 20, 20), sign("w99", 4, 4, 20, 20)]},
        "test": {"2": [sign("w99", 60, 40, 70, 50)], "3": []},
    }
    types = [*EVALUATED_CLASSES["2021"], "w99"]
    return write_tt100k(tmp_path / "tt100k_2021", "annotations_all.json", types, splits)


@pytest.fixture
def coco(tmp_path):
    """A COCO JSON with one negative box, and its image folder."""
    write_image(tmp_path / "images" / "a.jpg")
    boxes = [[1, 1, 5, 5], [1, 1, -5, 5]]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "stop"}],
    }
    (tmp_path / "signs.json").write_text(json.dumps(content))
    return tmp_path / "signs.json", tmp_path / "images"


def run(*args, output):
    prepare_dataset.main([*map(str, args), "--output", str(output), "--quiet"])


def error_of(capsys, *args, output):
    with pytest.raises(SystemExit) as exit_info:
        run(*args, output=output)
    assert exit_info.value.code not in (0, None)
    return capsys.readouterr().err + str(exit_info.value.code)


def test_tt100k_as_a_command(tt100k, tmp_path):
    """Once as users run it, from elsewhere and with the default output."""
    child = subprocess.run(
        [sys.executable, TOOL, "tt100k", "--source", tt100k],
        cwd=tmp_path,
        env={"PYTHONPATH": str(TOOL.parent.parent), "DETECTRON2_DATASETS": "sets"},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    written = sorted(path.name for path in (tmp_path / "sets" / "prepared").glob("*.json"))
    names = ("test", "test45", "train")
    suffixes = (".dataset.json", ".json", ".report.json")
    assert written == [f"tt100k_2021_{name}{suffix}" for name in names for suffix in suffixes]
    assert "tt100k_2021_train: 1 image (0 without an object), 2 objects of 46" in child.stdout
    assert "box_leaves_image: boxes that leave their image (1 clipped)" in child.stdout
    assert "imgs/2/objects/0, bbox: the box [60, 40, 10, 10] leaves" in child.stdout
    assert "1/1" in child.stderr  # the bar


def test_tt100k_with_the_45_classes_alone(tt100k, tmp_path):
    run("tt100k", "--source", tt100k, "--classes", "45", output=tmp_path / "out")
    content = json.loads((tmp_path / "out" / "tt100k_2021_45_train.json").read_text())
    assert len(content["categories"]) == 45
    assert len(content["annotations"]) == 1
    assert not (tmp_path / "out" / "tt100k_2021_45_test45.json").exists()


def test_visdrone(tmp_path):
    for split in ("train", "test-dev"):
        folder = tmp_path / f"VisDrone2019-DET-{split}"
        write_image(folder / "images" / "a.jpg")
        (folder / "annotations").mkdir()
        (folder / "annotations" / "a.txt").write_text("1,2,8,8,1,4,0,0\n")
    run("visdrone", "--source", tmp_path, output=tmp_path / "out")
    for name in ("visdrone_det_train", "visdrone_det_test_dev"):
        content = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert content["annotations"][0]["category_id"] == 4
        description = json.loads((tmp_path / "out" / f"{name}.dataset.json").read_text())
        assert description["protocol"] == "visdrone"


def test_aitod(tmp_path):
    (tmp_path / "annotations").mkdir()
    write_image(tmp_path / "test" / "images" / "a.png", 800, 800)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 800, "height": 800}],
        "annotations": [],
        "categories": [{"id": 1, "name": "ship"}],
    }
    (tmp_path / "annotations" / "aitodv2_test.json").write_text(json.dumps(content))
    run("aitod", "--source", tmp_path, output=tmp_path / "out")
    report = json.loads((tmp_path / "out" / "aitod_v2_test.report.json").read_text())
    assert report["problem_counts"] == {"unexpected_classes": 1}


def test_coco_by_file_and_by_folder(coco, tmp_path, capsys):
    json_file, images = coco
    run("coco", "--source", json_file, "--images", images, "--name", "mine", output=tmp_path / "o")
    content = json.loads((tmp_path / "o" / "mine.json").read_text())
    assert [a["id"] for a in content["annotations"]] == [0]
    assert f"{json_file}, id 1, bbox: the box [1, 1, -5, 5]" in capsys.readouterr().out

    tree = tmp_path / "coco"
    (tree / "annotations").mkdir(parents=True)
    json_file.rename(tree / "annotations" / "instances_val2017.json")
    images.rename(tree / "val2017")
    run("coco", "--source", tree, output=tmp_path / "o")
    assert (tmp_path / "o" / "coco_val2017.json").exists()


def test_strict_fails_and_names_the_report(coco, tmp_path, capsys):
    args = ("coco", "--source", coco[0], "--images", coco[1])
    error = error_of(capsys, *args, "--strict", output=tmp_path / "out")
    assert "signs has 1 problem, all in" in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["signs.report.json"]
    run(*args, output=tmp_path / "out")
    # What was prepared is clean: it passes.
    again = ("coco", "--source", tmp_path / "out" / "signs.json", "--images", coco[1])
    run(*again, "--strict", output=tmp_path / "again")


def test_errors_are_one_sentence(coco, tmp_path, capsys):
    json_file, images = coco
    cases = {
        ("coco", "--source", json_file): "--images must be the folder",
        ("coco", "--source", tmp_path / "no.json", "--images", images): "--source: there is no '",
        ("coco", "--source", json_file, "--images", tmp_path / "no"): "does not exist",
        ("coco", "--source", tmp_path / "no"): "--source: there is no '",
        ("coco", "--source", images, "--images", images): "which is a folder",
        ("coco", "--source", images): "has none of annotations/instances_*.json",
        ("tt100k", "--source", json_file): "is no folder",
        ("tt100k", "--source", tmp_path): "neither annotations.json",
        ("visdrone", "--source", tmp_path): "has none of the splits train, val, test-dev",
        ("visdrone", "--source", tmp_path, "--splits", "all"): "--splits has 'all'",
        ("aitod", "--source", tmp_path): "no annotation file of AI-TOD",
    }
    for args, message in cases.items():
        assert message in error_of(capsys, *args, output=tmp_path / "out")
    json_file.write_text('{"images": [')
    error = error_of(capsys, "coco", "--source", json_file, "--images", images, output=tmp_path)
    assert "is no JSON" in error and "Traceback" not in error
