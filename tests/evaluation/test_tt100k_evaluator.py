import json
import math

import pytest
from detectron2.data import MetadataCatalog
from detectron2.evaluation import print_csv_format
from detectron2.evaluation.testing import flatten_results_dict

from efpn_d2.data.converters.tt100k import EVALUATED_CLASSES
from efpn_d2.evaluation import TT100KEvaluator
from tests.evaluation.coco_files import annotation, dataset, instances, run, write

pytestmark = pytest.mark.fast

NAME = "tt100k_evaluator_test"


@pytest.fixture
def metadata(tmp_path):
    """Image 1 has two small signs and one of a rare class, image 2 a medium one, 3 none."""
    annotations = [
        annotation(1, 1, 1, [0, 0, 20, 20]),
        annotation(2, 1, 2, [100, 0, 31, 10]),
        annotation(3, 1, 3, [200, 0, 20, 20]),
        annotation(4, 2, 1, [0, 0, 50, 20]),
    ]
    content = dataset(annotations, num_images=3, names=("pn", "pne", "rare"))
    metadata = MetadataCatalog.get(NAME)
    metadata.set(json_file=write(tmp_path / "a.json", content), evaluator_type="coco")
    metadata.set(evaluated_classes=["pn", "pne"])
    metadata.set(thing_dataset_id_to_contiguous_id={1: 0, 2: 1, 3: 2})
    yield metadata
    MetadataCatalog.remove(NAME)


# Contiguous class, score, box: a hit, a false alarm on the rare sign, and one below 0.4.
FOUND = {
    1: instances([[0, 0.9, 0, 0, 20, 20], [0, 0.5, 200, 0, 20, 20], [1, 0.2, 100, 0, 31, 10]]),
    2: instances([]),
    3: instances([]),
}


def test_both_size_rules(metadata):
    results = run(TT100KEvaluator(NAME), FOUND)
    assert results.keys() == {"tt100k_long_side", "tt100k_sqrt_area", "tt100k_protocol"}
    rows = results["tt100k_long_side"]
    assert (rows["accuracy_small_at_0.4"], rows["recall_small_at_0.4"]) == (50, 50)
    assert rows["F1_small_at_0.4"] == pytest.approx(50)
    assert rows["F1_small_best"] == pytest.approx(80)
    assert rows["threshold_small_best"] == pytest.approx(0.2)
    assert (rows["accuracy_small_best"], rows["recall_small_best"]) == pytest.approx((200 / 3, 100))
    # Nothing is found of the medium sign, in an image without detections.
    assert (rows["accuracy_medium_at_0.4"], rows["recall_medium_at_0.4"]) == (100, 0)
    assert rows["recall_all_at_0.4"] == pytest.approx(100 / 3)
    counts = [rows[f"objects_{name}"] for name in ("small", "medium", "large", "all")]
    assert counts == [2, 1, 0, 3]
    assert math.isnan(rows["accuracy_large_best"]) and math.isnan(rows["recall_large_at_0.4"])
    # By its area the sign of 50 x 20 is small.
    assert results["tt100k_sqrt_area"]["objects_small"] == 3
    assert results["tt100k_sqrt_area"]["recall_small_at_0.4"] == pytest.approx(100 / 3)
    assert results["tt100k_protocol"] == {"classes": 2, "IoU": 0.5, "images": 3}


def test_images_can_be_chosen(metadata):
    results = run(TT100KEvaluator(NAME), FOUND, img_ids=[2])
    assert results["tt100k_long_side"]["objects_all"] == 1


def test_log_and_numbers(metadata, caplog):
    caplog.set_level("INFO")
    results = run(TT100KEvaluator(NAME, score_thresholds=[0.3]), FOUND)
    print_csv_format(results)
    assert "protocol tt100k, size rule long_side, 2 classes, IoU > 0.5" in caplog.text
    assert "| large [96, 400)  | 0         | 0.3" in caplog.text
    assert "| n/a (0 objects) | n/a (0 objects) |" in caplog.text
    assert "accuracy_small_at_0.3" in caplog.text
    for value in flatten_results_dict(results).values():
        float(value)


def test_files(metadata, tmp_path):
    run(TT100KEvaluator(NAME, output_dir=str(tmp_path)), FOUND)
    rules = json.loads((tmp_path / f"evaluation_{NAME}.json").read_text())["rules"]
    assert rules["classes"] == ["pn", "pne"]
    assert rules["bins in pixels"]["small"] == [0, 32]
    curves = json.loads((tmp_path / f"accuracy_recall_{NAME}.json").read_text())["curves"]
    curve = curves["sqrt_area"]["small"]
    assert len(curve["recall"]) == len(curve["accuracy"]) == 102
    assert (curve["recall"][0], curve["accuracy"][-1]) == (1, 1)


def test_a_detector_that_finds_nothing(metadata):
    rows = run(TT100KEvaluator(NAME), {i: instances([]) for i in (1, 2, 3)})["tt100k_long_side"]
    assert (rows["accuracy_small_at_0.4"], rows["recall_small_at_0.4"]) == (100, 0)
    assert rows["F1_small_best"] == 0
    assert math.isnan(rows["threshold_small_best"])


def test_classes_without_metadata(metadata, tmp_path):
    """The 45 of the release that has them all, or one sentence."""
    del metadata.evaluated_classes
    with pytest.raises(ValueError, match="45 evaluated classes of neither release of TT100K: list"):
        TT100KEvaluator(NAME)
    assert TT100KEvaluator(NAME, classes=["pne"]).rules()["classes"] == ["pne"]
    with pytest.raises(ValueError, match="the evaluated classes wo: correct EVALUATION.CLASSES"):
        TT100KEvaluator(NAME, classes=["pn", "wo"])
    MetadataCatalog.remove(NAME)
    content = dataset([], names=["other", *EVALUATED_CLASSES["2021"]])
    MetadataCatalog.get(NAME).set(json_file=write(tmp_path / "b.json", content))
    assert TT100KEvaluator(NAME).rules()["classes"] == list(EVALUATED_CLASSES["2021"])
