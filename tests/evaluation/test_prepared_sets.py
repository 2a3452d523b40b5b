"""From a data set in its own format to numbers by its own protocol, nothing said in between."""

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from efpn_d2 import add_efpn_config
from efpn_d2.data.datasets.prepare import prepare
from efpn_d2.data.datasets.prepared import PreparedFiles, register_prepared
from efpn_d2.data.datasets.tt100k import EVALUATED_CLASSES, read_tt100k
from efpn_d2.data.datasets.validation import Report
from efpn_d2.data.datasets.visdrone import read_visdrone
from efpn_d2.evaluation import TT100KEvaluator, VisDroneEvaluator, build_evaluator
from tests.data.datasets.trees import sign, write_image, write_tt100k
from tests.evaluation.coco_files import instances, run

pytestmark = pytest.mark.fast

NAME = "prepared_for_evaluation"


@pytest.fixture
def evaluator(tmp_path, monkeypatch):
    """Prepares what a reader gives and builds its evaluator; nothing loads the data set."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))

    def build(read, *args):
        report = Report(NAME, str(tmp_path))
        prepare(read(*args, report), PreparedFiles(None, NAME), report, progress=False)
        assert register_prepared(NAME)
        cfg = get_cfg()
        add_efpn_config(cfg)
        cfg.OUTPUT_DIR, cfg.TEST.DETECTIONS_PER_IMAGE = str(tmp_path / "output"), 500
        return build_evaluator(cfg, NAME)

    yield build
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def test_visdrone(evaluator, tmp_path):
    """A car, an ignored region and one of the others; a second image has a pedestrian."""
    folder = tmp_path / "VisDrone2019-DET-val"
    (folder / "annotations").mkdir(parents=True)
    lines = {
        "a": "2,2,10,10,1,4,0,0\n20,20,20,20,0,0,0,0\n45,2,10,10,0,11,0,0\n",
        "b": "2,2,10,10,1,1,0,0\n",
    }
    for name, text in lines.items():
        write_image(folder / "images" / f"{name}.jpg")
        (folder / "annotations" / f"{name}.txt").write_text(text)
    built = evaluator(read_visdrone, folder)
    assert type(built) is VisDroneEvaluator
    car = 3
    found = {
        1: instances(
            # In the ignored region: dropped. On the others: false, with a lower score than the hit.
            [[car, 0.9, 22, 22, 8, 8], [car, 0.8, 2, 2, 10, 10], [car, 0.7, 45, 2, 10, 10]],
        ),
        2: instances([]),
    }
    rows = run(built, found)["visdrone"]
    assert (rows["AP-car"], rows["AP-pedestrian"]) == pytest.approx((100, 0))
    assert rows["AP_official"] == rows["AP_class_mean"] == pytest.approx(50)
    assert rows["objects"] == 2
    found[1] = instances([[car, 0.8, 2, 2, 10, 10], [car, 0.9, 45, 2, 10, 10]])
    assert run(built, found)["visdrone"]["AP-car"] == pytest.approx(50)


def test_tt100k(evaluator, tmp_path):
    types = ["rare", *EVALUATED_CLASSES["2021"]]
    signs = {"7": [sign("i2", 2, 2, 22, 22), sign("rare", 30, 2, 50, 22)], "9": []}
    root = write_tt100k(tmp_path / "tt100k", "annotations_all.json", types, {"test": signs})
    built = evaluator(read_tt100k, root, "2021", "test")
    assert type(built) is TT100KEvaluator
    assert sorted(built.rules()["classes"]) == sorted(EVALUATED_CLASSES["2021"])
    i2 = types.index("i2")
    found = instances([[i2, 0.9, 2, 2, 20, 20], [i2, 0.8, 30, 2, 20, 20], [0, 0.9, 30, 2, 20, 20]])
    rows = run(built, {7: found, 9: instances([])})["tt100k_long_side"]
    # The second lies on a sign of a class that is not evaluated, the third is of that class.
    assert rows["accuracy_small_at_0.4"] == pytest.approx(50)
    assert rows["recall_small_at_0.4"] == pytest.approx(100)
    assert (rows["objects_small"], rows["F1_small_best"]) == (1, pytest.approx(100))
