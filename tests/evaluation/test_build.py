import pytest
from detectron2.data import MetadataCatalog
from detectron2.evaluation import CityscapesInstanceEvaluator, PascalVOCDetectionEvaluator

from efpn_d2 import get_config
from efpn_d2.evaluation import SizeBinnedCOCOEvaluator, build_evaluator

pytestmark = pytest.mark.fast


@pytest.fixture
def cfg(tmp_path):
    cfg = get_config("Base-RCNN-EFPN.yaml")
    cfg.OUTPUT_DIR = str(tmp_path)
    return cfg


@pytest.fixture
def metadata():
    yield MetadataCatalog.get("build_evaluator_test")
    MetadataCatalog.remove("build_evaluator_test")


def test_coco_takes_bins_and_detection_limit_from_the_config(cfg, metadata, tmp_path):
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    metadata.set(evaluator_type="coco", json_file=str(tmp_path / "a.json"))
    cfg.EVALUATION.SIZE_BINS = [0, 8]
    cfg.TEST.DETECTIONS_PER_IMAGE = 300
    evaluator = build_evaluator(cfg, "build_evaluator_test")
    assert isinstance(evaluator, SizeBinnedCOCOEvaluator)
    assert [b.label for b in evaluator._bins] == ["0_8", "8_inf"]
    assert evaluator._max_dets_per_image == [1, 10, 300]
    assert evaluator._output_dir == str(tmp_path / "inference")
    cfg.TEST.DETECTIONS_PER_IMAGE = -1
    assert build_evaluator(cfg, "build_evaluator_test")._max_dets_per_image == [1, 10, 100]


@pytest.mark.parametrize(
    ("evaluator_type", "expected"),
    [
        ("pascal_voc", PascalVOCDetectionEvaluator),
        ("cityscapes_instance", CityscapesInstanceEvaluator),
    ],
)
def test_core_evaluators(cfg, metadata, evaluator_type, expected):
    metadata.set(evaluator_type=evaluator_type, thing_classes=["a"])
    metadata.set(dirname=".", split="val", year=2007)
    assert type(build_evaluator(cfg, "build_evaluator_test")) is expected


@pytest.mark.parametrize("evaluator_type", ["panoptic", None])
def test_unknown_type_ends_in_one_sentence(cfg, metadata, evaluator_type, caplog):
    if evaluator_type:
        metadata.set(evaluator_type=evaluator_type)
    with pytest.raises(NotImplementedError, match="no evaluator for data set 'build_evaluator"):
        build_evaluator(cfg, "build_evaluator_test")
    assert f"(evaluator_type {evaluator_type}); set MetadataCatalog" in caplog.text
