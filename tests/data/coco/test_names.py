"""Classes of the same name: none is lost, wherever results go by names."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from efpn_d2.data.balancing import count_by_class
from efpn_d2.data.coco.names import unique_names
from efpn_d2.data.datasets import register_coco_sets
from efpn_d2.data.datasets.categories import category_names
from efpn_d2.data.datasets.prepared import register_prepared
from efpn_d2.evaluation import SizeBinnedCOCOEvaluator, TT100KEvaluator, VisDroneEvaluator
from efpn_d2.evaluation.coco_arrays import load_ground_truth
from tests.evaluation.coco_files import annotation, dataset, instances, run, write

pytestmark = pytest.mark.fast

NAMES = ["car (1)", "bus", "car (3)"]


@pytest.fixture
def content():
    objects = [annotation(1, 1, 1, [0, 0, 10, 10]), annotation(2, 1, 3, [50, 50, 20, 20])]
    return dataset(objects, 1, names=("car", "bus", "car"))


@pytest.fixture
def json_file(content, tmp_path):
    return write(tmp_path / "cars.json", content)


# The first car is found, of the second only a part is: IoU 0.5.
FOUND = {1: [(0, 0.9, 0, 0, 10, 10), (2, 0.8, 50, 50, 10, 20)]}


def evaluate(name, kind, **kwargs):
    evaluator = kind(name, **kwargs)
    return run(evaluator, {image: instances(rows) for image, rows in FOUND.items()})


def test_a_name_of_its_own_stays(content):
    assert unique_names(content["categories"]) == NAMES
    assert unique_names(content["categories"][:2]) == ["car", "bus"]
    assert unique_names([]) == []


def test_both_classes_are_in_the_results_and_their_file(catalogs, json_file, tmp_path):
    register_coco_sets([["cars", json_file, str(tmp_path)]])
    assert category_names(json_file) == tuple(NAMES)
    for _ in range(2):  # loading again is no change of the metadata
        (record,) = DatasetCatalog.get("cars")
    metadata = MetadataCatalog.get("cars")
    assert metadata.thing_classes == NAMES
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1, 3: 2}
    assert [a["category_id"] for a in record["annotations"]] == [0, 2]
    assert [name for name in MetadataCatalog.list() if "cars" in name] == ["cars"]
    results = evaluate("cars", SizeBinnedCOCOEvaluator, output_dir=str(tmp_path / "out"))
    assert results["bbox"]["AP-car (1)"] == pytest.approx(100)
    assert results["bbox"]["AP-car (3)"] == pytest.approx(10)  # at one of ten thresholds
    written = json.loads((tmp_path / "out" / "evaluation_cars.json").read_text())
    assert written["results"]["bbox"]["AP-car (1)"] == pytest.approx(100)


def test_a_set_of_detectron2s_loader_has_them_too(catalogs, json_file, tmp_path):
    register_coco_instances("cars", {}, json_file, str(tmp_path))
    DatasetCatalog.get("cars")
    results = evaluate("cars", SizeBinnedCOCOEvaluator)
    assert results["bbox"]["AP-car (1)"] == pytest.approx(100)
    assert results["bbox"]["AP-car (3)"] == pytest.approx(10)


def test_so_have_the_other_protocols_and_the_report(catalogs, json_file, tmp_path):
    register_coco_sets([["cars", json_file, str(tmp_path)]])
    found = evaluate("cars", VisDroneEvaluator)["visdrone"]
    assert found["AP-car (1)"] == pytest.approx(100) and found["AP-car (3)"] == pytest.approx(10)
    found = evaluate("cars", TT100KEvaluator, classes=["car (1)"])["tt100k_sqrt_area"]
    assert (found["objects_all"], found["recall_all_at_0.4"]) == (1, 100)
    assert load_ground_truth(json_file).class_names == NAMES


def test_crops_of_an_older_prepared_set_count_both(catalogs, content, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert count_by_class(content) == {"car (1)": 1, "bus": 0, "car (3)": 1}
    (tmp_path / "prepared").mkdir()
    write(tmp_path / "prepared" / "cars.json", content)
    description = {"image_root": str(tmp_path), "image_root_from_here": "..", "protocol": "coco"}
    description |= {"evaluated_classes": None, "classes": ["car", "bus", "car"]}
    write(tmp_path / "prepared" / "cars.dataset.json", description)
    assert register_prepared("cars")
    assert MetadataCatalog.get("cars").thing_classes == NAMES
    assert len(DatasetCatalog.get("cars")) == 1
