"""Records that cannot be read: one sentence that names them, wherever they are read."""

import json
import math

import pytest
import torch
from detectron2.data import MetadataCatalog

from efpn_d2.evaluation import (
    COCO_PROTOCOLS,
    SizeBinnedCOCOEvaluator,
    TT100KEvaluator,
    VisDroneEvaluator,
    evaluate_coco,
)
from efpn_d2.evaluation.coco_backends import BACKENDS
from tests.evaluation.coco_files import annotation, dataset, instances, run

pytestmark = pytest.mark.fast

NAME = "bad_records_test"
EVALUATORS = (SizeBinnedCOCOEvaluator, TT100KEvaluator, VisDroneEvaluator)


def two_objects():
    objects = [annotation(1, 1, 1, [0, 0, 10, 10]), annotation(2, 1, 2, [20, 20, 10, 10])]
    return dataset(objects, 2, names=("pn", "pne"))


@pytest.fixture
def register(tmp_path):
    """Registers a COCO JSON of some content."""

    def to_catalog(content):
        path = tmp_path / "gt.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        metadata = MetadataCatalog.get(NAME)
        metadata.set(json_file=str(path), evaluator_type="coco", evaluated_classes=["pn", "pne"])
        metadata.set(thing_dataset_id_to_contiguous_id={1: 0, 2: 1}, thing_classes=["pn", "pne"])
        return NAME

    yield to_catalog
    MetadataCatalog.remove(NAME)


def broken(record, field, value="missing"):
    """A record, or what stands in its place, with another value in a field."""
    if field is None:
        return value
    record = {**record, field: value}
    return {k: v for k, v in record.items() if k != field or value != "missing"}


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("annotations", None, None, "annotations[1] of the dataset is None, but must be an obj"),
        ("annotations", None, [1], "annotations[1] of the dataset is [1], but must be an object"),
        ("annotations", "image_id", "missing", "annotations[1] of the dataset has no image_id"),
        ("annotations", "image_id", None, "annotations[1] of the dataset has the image_id None"),
        ("annotations", "category_id", "missing", "annotations[1] of the dataset has no category"),
        ("annotations", "category_id", "1", "has the category_id '1', which must be an integer"),
        ("annotations", "bbox", "missing", "annotations[1] of the dataset has no bbox"),
        ("annotations", "bbox", [0, 0, 1], "has the bbox [0, 0, 1], which must be four finite"),
        ("annotations", "bbox", [0, 0, -1, 2], "has the bbox [0, 0, -1, 2], which must be"),
        ("annotations", "area", "missing", "annotations[1] of the dataset has no area"),
        ("annotations", "area", math.nan, "annotations[1] of the dataset has the area nan"),
        ("annotations", "iscrowd", 2, "annotations[1] of the dataset has the iscrowd 2"),
        ("images", None, None, "images[1] of the dataset is None"),
        ("images", "id", "missing", "images[1] of the dataset has no id"),
        ("categories", "name", "missing", "categories[1] of the dataset has no name"),
        ("results", None, None, "results[1] is None, but must be an object with image_id, cat"),
        ("results", "score", "missing", "results[1] has no score"),
        ("results", "score", "0.5", "results[1] has the score '0.5', which must be a finite"),
        ("results", "bbox", "missing", "results[1] has no bbox"),
        ("results", "bbox", ["1", 0, 9, 9], "results[1] has the bbox ['1', 0, 9, 9], which must"),
        ("results", "category_id", [1], "results[1] has the category_id [1], which must be an"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(part, field, value, message):
    good = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}
    content = {**two_objects(), "results": [good, dict(good)]}
    content[part][1] = broken(content[part][1], field, value)
    with pytest.raises(ValueError) as error:
        evaluate_coco(content, content["results"], COCO_PROTOCOLS["aitod"])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_iscrowd_may_be_left_out(backend):
    pytest.importorskip(BACKENDS[backend])
    coco = dataset([annotation(1, 1, 1, [0, 0, 10, 10])])
    coco["annotations"][0].pop("iscrowd")
    results = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5}]
    metrics = evaluate_coco(coco, results, COCO_PROTOCOLS["coco"], backend=backend).metrics()
    assert metrics["AP"] == pytest.approx(100)


@pytest.mark.parametrize("lost", ["segmentation", "height"])
def test_masks_need_more(lost):
    coco = dataset([annotation(1, 1, 1, [0, 0, 9, 9], segmentation=[[0, 0, 9, 0, 9, 9]])])
    coco["annotations"][0].pop(lost, None)
    coco["images"][0].pop(lost, None)
    with pytest.raises(ValueError, match=f"of the dataset has no {lost}"):
        evaluate_coco(coco, [], COCO_PROTOCOLS["coco"], "segm")
    result = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}
    whole = dataset([])
    with pytest.raises(ValueError, match=r"results\[0\] has no segmentation"):
        evaluate_coco(whole, [result], COCO_PROTOCOLS["coco"], "segm")


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("annotations", None, None, "annotations[1] of {} is None, but must be an object with"),
        ("annotations", "image_id", "missing", "annotations[1] of {} has no image_id"),
        ("annotations", "id", "missing", "annotations[1] of {} has no id"),
        ("annotations", "bbox", [1, 2, math.nan, 4], "annotations[1] of {} has the bbox [1, 2, na"),
        ("annotations", "category_id", None, "annotations[1] of {} has the category_id None"),
        ("annotations", "visdrone_score", "1", "annotations[1] of {} has the visdrone_score '1'"),
        ("images", None, 5, "images[1] of {} is 5, but must be an object"),
        ("images", "width", "missing", "images[1] of {} has no width"),
        ("categories", "id", "missing", "categories[1] of {} has no id"),
    ],
)
def test_evaluators_name_a_record_of_their_file(register, evaluator, part, field, value, message):
    content = two_objects()
    content[part][1] = broken(content[part][1], field, value)
    name = register(content)
    with pytest.raises(ValueError) as error:
        evaluator(name)
    expected = message.format(MetadataCatalog.get(NAME).json_file)
    assert str(error.value).startswith(expected) and "\n" not in str(error.value)


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "gt.json is not a COCO JSON: it must be an object with the list 'images'"),
        (
            '{"images": {}}',
            "gt.json is not a COCO JSON: it must be an object with the list 'images'",
        ),
        ('{"images": [', "gt.json' is not JSON"),
    ],
)
def test_evaluators_name_a_file_that_is_something_else(register, evaluator, content, message):
    name = register(content)
    with pytest.raises(ValueError) as error:
        evaluator(name)
    assert message in str(error.value)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_a_detection_of_nan_is_named(register, evaluator):
    name = register(two_objects())
    found = instances([[0, 0.5, 0, 0, 10, 10], [0, math.nan, 0, 0, 10, 10]])
    with pytest.raises(ValueError, match=r"^results\[1\] has the score nan, which must be a fin"):
        run(evaluator(name), {1: found, 2: instances([])})


def test_areas_are_needed_when_the_evaluator_is_made_and_masks_when_there_are_some(register):
    content = two_objects()
    content["annotations"][1].pop("area")
    name = register(content)
    with pytest.raises(ValueError, match=r"annotations\[1\] of \S+gt.json has no area"):
        SizeBinnedCOCOEvaluator(name)
    VisDroneEvaluator(name)  # which does not read it
    evaluator = SizeBinnedCOCOEvaluator(register(two_objects()))
    masked = instances([[0, 0.5, 0, 0, 10, 10]])
    masked.pred_masks = torch.ones(1, 400, 400, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"annotations\[0\] of \S+gt.json has no segmentation"):
        run(evaluator, {1: masked, 2: instances([])})
