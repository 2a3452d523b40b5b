from pathlib import Path

import pytest

from efpn_d2.data.validation import KINDS, NOTES, ValidationReport

pytestmark = pytest.mark.fast

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "datasets.md"


def test_every_kind_is_documented_as_it_is_printed():
    text = DOCUMENT.read_text()
    for kind, description in {**KINDS, **NOTES}.items():
        assert f"| `{kind}` | {description} |" in text


@pytest.mark.parametrize(
    "side, label", [(7.999, "0-8"), (8, "8-16"), (95.9, "32-96"), (96, "96+"), (1e4, "96+")]
)
def test_bins_are_half_open(side, label):
    box = {"image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, side, side]}
    categories = [{"id": 1, "name": "a"}]
    report = ValidationReport("set", "set.json")
    report.count({"images": [{"id": 1}], "categories": categories, "annotations": [box]})
    assert report.counts["total"].keys() >= {"0-8", "8-16", "16-32", "32-96", "96+"}
    assert report.counts["total"][label] == 1


def test_counts_by_class_size_and_what_is_ignored():
    def box(image_id, category_id, width, height, iscrowd=0, x=0):
        keys = ("image_id", "category_id", "iscrowd")
        content = dict(zip(keys, (image_id, category_id, iscrowd), strict=True))
        return {**content, "bbox": [x, 0, width, height]}

    coco = {
        "images": [{"id": 1}, {"id": 2}, {"id": 3}],
        "categories": [{"id": 5, "name": "a"}, {"id": 9, "name": "b"}],
        "annotations": [
            box(1, 5, 4, 9),  # sqrt(36) = 6
            box(1, 5, 4, 100),  # sqrt(400) = 20, but the longer side is 100
            box(2, 5, 7, 7, iscrowd=1),  # one region, ignored for both classes
            box(2, 9, 7, 7, iscrowd=1),
        ],
    }
    report = ValidationReport("set", "set.json")
    report.count(coco)
    counts = report.counts
    assert (counts["images"], counts["images_without_object"]) == (3, 2)
    assert counts["by_class"]["a"] == {
        "objects": 2,
        "0-8": 1,
        "8-16": 0,
        "16-32": 1,
        "32-96": 0,
        "96+": 0,
        "ignored": 1,
    }
    assert counts["total"]["objects"] == 2
    assert counts["total"]["ignored"] == 1
    assert counts["by_long_side"] == {"0-32": 1, "32-96": 0, "96-400": 1, "400+": 0}
    assert [(note.kind, note.id) for note in report.notes] == [("class_without_object", 9)]
