import pytest
from detectron2.data import MetadataCatalog
from detectron2.evaluation import CityscapesInstanceEvaluator, PascalVOCDetectionEvaluator

from efpn_d2 import get_config
from efpn_d2.data.converters.tt100k import EVALUATED_CLASSES
from efpn_d2.evaluation import (
    COCO_PROTOCOLS,
    SizeBinnedCOCOEvaluator,
    TT100KEvaluator,
    VisDroneEvaluator,
    build_evaluator,
)
from tests.evaluation.coco_files import write

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


@pytest.fixture
def coco(metadata, tmp_path):
    """A data set whose file is empty, but for categories of all names in use."""
    names = [*EVALUATED_CLASSES["2016"], "i2r"]
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    content = {"images": [], "annotations": [], "categories": categories}
    metadata.set(evaluator_type="coco", json_file=write(tmp_path / "a.json", content))
    return metadata


def test_coco_takes_bins_and_detection_limit_from_the_config(cfg, coco, tmp_path):
    cfg.EVALUATION.SIZE_BINS = [0, 8]
    cfg.TEST.DETECTIONS_PER_IMAGE = 300
    evaluator = build_evaluator(cfg, "build_evaluator_test")
    assert isinstance(evaluator, SizeBinnedCOCOEvaluator)
    assert [b.key for b in evaluator.protocol.bins] == ["s", "m", "l", "0_8", "8_inf"]
    assert evaluator.protocol.max_dets == (1, 10, 300)
    assert evaluator._output_dir == str(tmp_path / "inference")
    cfg.TEST.DETECTIONS_PER_IMAGE = 5
    assert build_evaluator(cfg, "build_evaluator_test").protocol.max_dets == (1, 5)
    cfg.TEST.DETECTIONS_PER_IMAGE = -1
    assert build_evaluator(cfg, "build_evaluator_test").protocol.max_dets == (1, 10, 100)


def test_coco_as_the_data_sets_protocol_leaves_the_limit_to_the_detector(cfg, coco):
    """It is what is said of any file; whoever wants 100 detections names the protocol."""
    coco.set(protocol="coco")
    cfg.TEST.DETECTIONS_PER_IMAGE = 300
    assert build_evaluator(cfg, "build_evaluator_test").protocol.max_dets == (1, 10, 300)
    cfg.EVALUATION.PROTOCOL = "coco"
    assert build_evaluator(cfg, "build_evaluator_test").protocol.max_dets == (1, 10, 100)


def test_the_protocol_is_the_configs_or_else_the_data_sets(cfg, coco):
    coco.set(protocol="aitod")
    assert build_evaluator(cfg, "build_evaluator_test").protocol == COCO_PROTOCOLS["aitod"]
    for name in COCO_PROTOCOLS:
        cfg.EVALUATION.PROTOCOL = name
        assert build_evaluator(cfg, "build_evaluator_test").protocol == COCO_PROTOCOLS[name]
    cfg.EVALUATION.PROTOCOL = "visdrone"
    assert type(build_evaluator(cfg, "build_evaluator_test")) is VisDroneEvaluator
    cfg.EVALUATION.PROTOCOL = "tt100k"
    cfg.EVALUATION.SCORE_THRESHOLDS = [0.3, 0.6]
    evaluator = build_evaluator(cfg, "build_evaluator_test")
    assert type(evaluator) is TT100KEvaluator
    assert evaluator.rules()["classes"] == list(EVALUATED_CLASSES["2016"])
    assert evaluator.rules()["score thresholds"] == [0.3, 0.6]
    cfg.EVALUATION.CLASSES = ["pn", "i2r"]
    assert build_evaluator(cfg, "build_evaluator_test").rules()["classes"] == ["pn", "i2r"]


def test_parts_of_the_protocol_can_be_set(cfg, coco):
    cfg.EVALUATION.merge_from_list(
        ["PROTOCOL", "aitod", "IOU_THRESHOLDS", [0.3, 0.5], "MAX_DETS", [100, 3000]]
    )
    cfg.EVALUATION.BACKEND = "pycocotools"
    evaluator = build_evaluator(cfg, "build_evaluator_test")
    assert evaluator.protocol.iou_thresholds == (0.3, 0.5)
    assert evaluator.protocol.max_dets == (100, 3000)
    assert len(evaluator.rules()["notes"]) == 2
    assert evaluator.backend == "pycocotools"


def test_unknown_protocol_ends_in_one_sentence(cfg, coco):
    coco.set(protocol="voc")
    message = r"protocol 'voc' of dataset 'build.*' is unknown: set EVALUATION.PROTOCOL to one of"
    with pytest.raises(ValueError, match=message):
        build_evaluator(cfg, "build_evaluator_test")


@pytest.mark.parametrize(
    ("protocol", "limit", "needed"),
    [
        ("aitod", 100, 1500),
        ("visdrone", 499, 500),
        ("coco", 50, 100),
        ("coco", 100, None),
        ("aitod", -1, None),
        ("", 50, None),
        ("tt100k", 50, None),
    ],
)
def test_a_detector_with_too_low_a_limit_is_warned_of(cfg, coco, caplog, protocol, limit, needed):
    cfg.EVALUATION.PROTOCOL = protocol
    cfg.TEST.DETECTIONS_PER_IMAGE = limit
    build_evaluator(cfg, "build_evaluator_test")
    warnings = [r.getMessage() for r in caplog.records if "DETECTIONS_PER_IMAGE" in r.getMessage()]
    assert len(warnings) == (needed is not None)
    if needed:
        assert f"at most {limit} detections" in warnings[0]
        assert f"the {needed} of the protocol {protocol}: set both" in warnings[0]


def test_what_a_protocol_does_not_read_is_warned_of(cfg, coco, caplog):
    cfg.EVALUATION.merge_from_list(["PROTOCOL", "tt100k", "SIZE_BINS", [0, 8], "MAX_DETS", [9]])
    build_evaluator(cfg, "build_evaluator_test")
    assert "EVALUATION.SIZE_BINS, MAX_DETS is ignored by the protocol tt100k" in caplog.text


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
    with pytest.raises(NotImplementedError, match="no evaluator for dataset 'build_evaluator"):
        build_evaluator(cfg, "build_evaluator_test")
    assert f"(evaluator_type {evaluator_type}); set MetadataCatalog" in caplog.text
