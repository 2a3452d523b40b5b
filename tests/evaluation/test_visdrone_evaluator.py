import json
import math

import pytest
from detectron2.data import MetadataCatalog
from detectron2.evaluation.testing import flatten_results_dict

from efpn_d2.evaluation import VisDroneEvaluator
from tests.evaluation.coco_files import annotation, dataset, instances, run, write

pytestmark = pytest.mark.fast

NAME = "visdrone_evaluator_test"
NAMES = ("pedestrian", "people", "others")


def register(tmp_path, annotations, num_images=3):
    content = dataset(annotations, num_images=num_images, names=NAMES)
    metadata = MetadataCatalog.get(NAME)
    metadata.set(json_file=write(tmp_path / "a.json", content), evaluator_type="coco")
    metadata.set(thing_dataset_id_to_contiguous_id={1: 0, 2: 1, 3: 2}, thing_classes=list(NAMES))


@pytest.fixture(autouse=True)
def remove():
    yield
    MetadataCatalog.remove(NAME)


def visdrone(number, image_id, category, bbox, score=1):
    """As converted: ignored regions and others are crowds, of whatever class the file has."""
    ids = {0: 1, 1: 1, 2: 2, 11: 3}
    fields = {"visdrone_category": category, "visdrone_score": score}
    crowd = int(category in (0, 11))
    return annotation(number, image_id, ids[category], bbox, iscrowd=crowd, **fields)


ANNOTATIONS = [
    visdrone(1, 1, 1, [10, 10, 20, 20]),
    visdrone(2, 1, 0, [100, 100, 100, 100], score=0),
    visdrone(3, 1, 11, [300, 10, 40, 40], score=0),
    visdrone(4, 2, 2, [10, 10, 20, 20]),
    visdrone(5, 3, 2, [10, 10, 20, 20]),
]
FOUND = {
    # On the ignored region: dropped. On "others": false.
    1: instances(
        [
            [0, 0.9, 120, 120, 20, 20],
            [0, 0.8, 10, 10, 20, 20],
            [0, 0.7, 300, 10, 40, 40],
        ]
    ),
    2: instances([]),
    3: instances([]),
}


def test_means_and_names(tmp_path, caplog):
    caplog.set_level("INFO")
    register(tmp_path, ANNOTATIONS)
    results = run(VisDroneEvaluator(NAME, output_dir=str(tmp_path)), FOUND)
    rows = results["visdrone"]
    assert rows["AP-pedestrian"] == pytest.approx(100)
    assert rows["AP-people"] == 0
    assert math.isnan(rows["AP-others"])
    # Pedestrians are in one image, people in two.
    for name in ("AP", "AP50", "AP75", "AR1", "AR10", "AR100", "AR500"):
        assert rows[f"{name}_official"] == pytest.approx(100 / 3)
        assert rows[f"{name}_class_mean"] == pytest.approx(50)
    assert rows["objects"] == 3
    assert results["visdrone_protocol"]["maxDets"] == 500
    for value in flatten_results_dict(results).values():
        float(value)
    assert "500 detections per image across classes" in caplog.text
    assert "official (weighted by images)" in caplog.text
    content = json.loads((tmp_path / f"evaluation_{NAME}.json").read_text())
    assert content["rules"]["maxDets"] == [1, 10, 100, 500]
    assert content["results"]["visdrone"]["AP-others"] is None


def test_a_detection_on_others_is_false(tmp_path):
    register(tmp_path, ANNOTATIONS)
    found = FOUND | {1: instances([[0, 0.9, 300, 10, 40, 40], [0, 0.8, 10, 10, 20, 20]])}
    assert run(VisDroneEvaluator(NAME), found)["visdrone"]["AP-pedestrian"] == pytest.approx(50)


def test_annotations_of_score_0_excuse(tmp_path):
    extra = visdrone(6, 1, 1, [300, 300, 40, 40], score=0)
    register(tmp_path, [*ANNOTATIONS, extra])
    found = FOUND | {1: instances([[0, 0.9, 310, 310, 10, 10], [0, 0.8, 10, 10, 20, 20]])}
    rows = run(VisDroneEvaluator(NAME), found)["visdrone"]
    # Precision 1, but the ignored box is in the denominator of the recall.
    assert rows["AP-pedestrian"] == pytest.approx(50)
    assert rows["objects"] == 3


def test_regions_and_others_may_be_repeated_for_each_class(tmp_path):
    """As in prepared sets, for evaluators that know crowds of one class only."""
    repeated = [a | {"category_id": k} for a in ANNOTATIONS if a["iscrowd"] for k in (1, 2)]
    register(tmp_path, [*(a for a in ANNOTATIONS if not a["iscrowd"]), *repeated])
    rows = run(VisDroneEvaluator(NAME), FOUND)["visdrone"]
    assert (rows["AP-pedestrian"], rows["objects"]) == (pytest.approx(100), 3)
    found = FOUND | {1: instances([[0, 0.9, 300, 10, 40, 40], [0, 0.8, 10, 10, 20, 20]])}
    assert run(VisDroneEvaluator(NAME), found)["visdrone"]["AP-pedestrian"] == pytest.approx(50)


def test_crowds_of_other_files_are_ignored_regions(tmp_path):
    keys = ("visdrone_category", "visdrone_score")
    plain = [{k: v for k, v in a.items() if k not in keys} for a in ANNOTATIONS]
    register(tmp_path, plain)
    rows = run(VisDroneEvaluator(NAME), FOUND)["visdrone"]
    assert rows["AP-pedestrian"] == pytest.approx(100)
    found = FOUND | {1: instances([[0, 0.9, 300, 10, 40, 40], [0, 0.8, 10, 10, 20, 20]])}
    assert run(VisDroneEvaluator(NAME), found)["visdrone"]["AP-pedestrian"] == pytest.approx(100)


def test_nothing(tmp_path):
    register(tmp_path, [])
    rows = run(VisDroneEvaluator(NAME), {1: instances([])})["visdrone"]
    assert math.isnan(rows["AP_official"]) and math.isnan(rows["AP_class_mean"])
    assert rows["objects"] == 0


def test_images_can_be_chosen(tmp_path):
    register(tmp_path, ANNOTATIONS)
    rows = run(VisDroneEvaluator(NAME), FOUND, img_ids=[1])["visdrone"]
    assert rows["AP_official"] == rows["AP_class_mean"] == pytest.approx(100)
