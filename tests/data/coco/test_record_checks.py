import json
import math
from pathlib import Path

import numpy as np
import pytest

from efpn_d2.data.coco.record_checks import (
    ANNOTATION,
    FLAG,
    RESULT,
    SIZE,
    Field,
    check_content,
    check_records,
)
from efpn_d2.data.datasets.categories import category_names

pytestmark = pytest.mark.fast

GOOD = {"image_id": "a", "category_id": 3, "bbox": [0, 1.5, 0, 2], "score": 0.5}


@pytest.mark.parametrize(
    "changes",
    [{}, {"bbox": (1, 2, 3, 4)}, {"score": np.float32(0.5), "category_id": np.int64(3)}],
)
def test_what_is_right_passes_also_by_other_types(changes):
    assert check_records([GOOD, {**GOOD, **changes}], "results[{}]", RESULT) is None
    assert check_records([], "results[{}]", RESULT) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [0, 0, 1, math.inf]}, "bbox [0, 0, 1, inf], which must be four finite numbers"),
        ({"bbox": [0, 0, 1, True]}, "bbox [0, 0, 1, True], which must be four finite numbers"),
        ({"bbox": [0, 0, 1]}, "bbox [0, 0, 1], which must be four finite numbers"),
        ({"bbox": 5}, "bbox 5, which must be four finite numbers"),
        ({"bbox": [0, 0, 1, -1]}, "bbox [0, 0, 1, -1], which must be"),
        ({"category_id": "3"}, "category_id '3', which must be an integer"),
        ({"category_id": True}, "category_id True, which must be an integer"),
        ({"image_id": 1.5}, "image_id 1.5, which must be an integer or a string"),
        ({"score": None}, "score None, which must be a finite number"),
        ({"iscrowd": 2}, "iscrowd 2, which must be 0 or 1"),
        ({"width": 0}, "width 0, which must be a number above 0"),
    ],
)
def test_the_first_bad_value_is_named(changes, message):
    fields = (*RESULT, Field("iscrowd", FLAG, False), *(SIZE if "width" in changes else ()))
    good = {**GOOD, "width": 8, "height": 8, "iscrowd": 1}
    records = [good, {**good, **changes}, {**good, **changes}]
    with pytest.raises(ValueError) as error:
        check_records(records, "results[{}] of x.json", fields)
    assert str(error.value).startswith("results[1] of x.json has the ")
    assert message in str(error.value)


def test_missing_lists_and_fields():
    with pytest.raises(ValueError, match=r"^x.json .*COCO JSON: .* the list 'annotations'"):
        check_content({"images": []}, "x.json", annotations=ANNOTATION)
    with pytest.raises(ValueError, match=r"^annotations\[0\] of x.json has no bbox: correct it"):
        content = {"annotations": [{"image_id": 1, "category_id": 1}]}
        check_content(content, "x.json", annotations=ANNOTATION)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category_id": 9}, "must be the id of a category of the file"),
        ({"ignore": 1}, "ignore 1, which must be 0 for Detectron2"),
        ({"id": None}, "id None, which must be an integer"),
    ],
)
def test_what_detectron2_could_not_load_is_named_before_it(write_coco, changes, message):
    json_file, _ = write_coco()
    content = json.loads(Path(json_file).read_text())
    content["annotations"][0] |= changes
    Path(json_file).write_text(json.dumps(content))
    with pytest.raises(ValueError) as error:
        category_names(json_file)
    assert f"annotations[0] of {json_file} has the " in str(error.value)
    assert message in str(error.value)


def test_ids_that_are_used_twice_are_named(write_coco):
    json_file, _ = write_coco()
    content = json.loads(Path(json_file).read_text())
    content["annotations"] *= 2
    Path(json_file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has 2 annotations with the id 1, which Detectron2 ref"):
        category_names(json_file)
