import json
import math

import pytest
from detectron2.data import transforms as T
from detectron2.data.datasets import load_coco_json
from detectron2.data.detection_utils import transform_instance_annotations
from PIL import Image

from efpn_d2.data.datasets.validation import Report, clean_coco
from tests.data.datasets.trees import truncate, write_image

pytestmark = pytest.mark.fast

NAN, INFINITY = math.nan, math.inf


def box(id=1, bbox=(10, 10, 8, 8), **more):
    """An annotation; what is None is left out."""
    content = {"id": id, "image_id": 1, "category_id": 1, "bbox": list(bbox), "area": 64}
    content |= {"iscrowd": 0, **more}
    return {key: value for key, value in content.items() if value is not None}


@pytest.fixture
def clean(tmp_path):
    """Checks annotations (and images and categories) and loads the result by Detectron2."""

    def run(annotations=(), images=None, categories=None, **more):
        if not (tmp_path / "a.jpg").exists():
            write_image(tmp_path / "a.jpg")
        content = {
            "images": images or [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
            "annotations": list(annotations),
            "categories": categories or [{"id": 1, "name": "stop"}],
            **more,
        }
        report = Report("set", "set.json")
        result = clean_coco(content, tmp_path, report, progress=False)
        report.count(result)
        json_file = tmp_path / "clean.json"
        json_file.write_text(json.dumps(result, allow_nan=False))
        result["records"] = load_coco_json(str(json_file), str(tmp_path), "coco_cleaned")
        return result, report

    yield run
    from detectron2.data import MetadataCatalog

    if "coco_cleaned" in MetadataCatalog.list():
        MetadataCatalog.remove("coco_cleaned")


def found(report):
    return [(f.kind, f.id, f.field, f.action) for f in report.problems]


def test_what_is_right_stays_as_it_is(clean):
    annotation = box(segmentation=[[10, 10, 18, 10, 18, 18]], attributes={"source": "x"})
    result, report = clean([annotation], info={"year": 2000})
    assert result["annotations"] == [annotation]
    assert result["info"] == {"year": 2000}
    assert not report.problems and not report.notes


@pytest.mark.parametrize(
    "bbox, kind",
    [
        ((10, 10, -8, 8), "empty_box"),
        ((10, 10, 8, 0), "empty_box"),
        ((NAN, 10, 8, 8), "invalid_box"),
        ((10, 10, INFINITY, 8), "invalid_box"),
        ((10, 10, 8), "invalid_box"),
        (("10", 10, 8, 8), "invalid_box"),
        ((64, 10, 8, 8), "box_outside_image"),
        ((10, -9, 8, 8), "box_outside_image"),
    ],
)
def test_boxes_that_cannot_be_used_are_dropped_by_name(clean, bbox, kind):
    result, report = clean([box(7, bbox), box(8)])
    assert found(report) == [(kind, 7, "bbox", "dropped")]
    assert report.problems[0].file == "set.json"
    assert [a["id"] for a in result["annotations"]] == [8]


def test_boxes_are_clipped_but_not_for_rounding(clean):
    result, report = clean([box(1, (-2, 40, 10, 20)), box(2, (56.003, 40.005, 8, 8))])
    assert found(report) == [("box_leaves_image", 1, "bbox", "clipped")]
    first, second = result["annotations"]
    assert (first["bbox"], first["area"]) == ([0, 40, 8, 8], 64)
    assert second["bbox"] == [56.003, 40.005, 8, 8]


def test_boxes_survive_the_resizing_of_detectron2(clean):
    """Detectron2 keeps the type of a box, and would cut 8 * 1.43 to 11."""
    result, _ = clean([box(1, (10, 10, 8, 8)), box(2, (-2, 10, 9, 8))])
    for entry in result["records"][0]["annotations"]:
        assert all(isinstance(value, float) for value in entry["bbox"])
        resize = T.ResizeTransform(100, 100, 143, 143)
        x0, y0, x1, y1 = transform_instance_annotations(entry, resize, (143, 143))["bbox"]
        assert y1 - y0 == pytest.approx(8 * 1.43)


def test_missing_fields_are_added_and_ignore_becomes_iscrowd(clean):
    annotations = [box(1, area=None, iscrowd=None), box(2, ignore=1)]
    result, report = clean([*annotations, box(3, (30, 30, 8, 8), area=NAN)])
    assert [(a["area"], a["iscrowd"]) for a in result["annotations"]] == [(64, 0), (64, 1), (64, 0)]
    assert not any("ignore" in a for a in result["annotations"])
    assert found(report) == [("invalid_area", 3, "area", "corrected")]
    assert [(note.kind, note.id) for note in report.notes] == [
        ("area_added", 1),
        ("ignore_to_iscrowd", 2),
    ]


def test_duplicate_ids(clean):
    annotations = [box(5), box(5), box(5, (30, 30, 8, 8)), box(6, (40, 10, 8, 8))]
    result, report = clean(annotations)
    assert found(report) == [
        ("duplicate_annotation", 5, "id", "dropped"),
        ("duplicate_annotation_id", 5, "id", "corrected"),
    ]
    assert [(a["id"], a["bbox"][0]) for a in result["annotations"]] == [(5, 10), (7, 30), (6, 40)]


def test_one_object_by_two_ids_counts_once(clean):
    outside = (70, 10, 8, 8)
    annotations = [
        box(1),
        box(2, (10.0, 10, 8, 8), area=60),
        box(3, category_id=2),  # another class
        box(4, (10, 10, 8, 9)),  # another box
        box(5, iscrowd=1),  # what is ignored is no object
        box(6, iscrowd=1),
        box(7, (-3, 10, 8, 8)),  # not the same as the next, although both are cut to 5 x 8
        box(8, (-3.5, 10, 8.5, 8)),
        box(9, outside),
        box(10, outside),
        box(11),
    ]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    result, report = clean(annotations, categories=categories)
    assert found(report) == [
        ("duplicate_object", 2, "bbox", "dropped"),
        ("box_leaves_image", 7, "bbox", "clipped"),
        ("box_leaves_image", 8, "bbox", "clipped"),
        ("box_outside_image", 9, "bbox", "dropped"),
        ("box_outside_image", 10, "bbox", "dropped"),
        ("duplicate_object", 11, "bbox", "dropped"),
    ]
    assert "the same object as id 1: same image" in report.problems[0].message
    assert [a["id"] for a in result["annotations"]] == [1, 3, 4, 5, 6, 7, 8]


def test_annotations_without_id_are_named_by_their_index(clean):
    annotations = [box(1), box(None, (30, 30, 8, 8)), box(None, (1, 1, 0, 8)), box("x")]
    result, report = clean(annotations)
    assert found(report) == [
        ("invalid_annotation", None, "annotations[1].id", "corrected"),
        ("invalid_annotation", None, "annotations[2].id", "corrected"),
        ("empty_box", None, "annotations[2].bbox", "dropped"),
        ("invalid_annotation", None, "annotations[3].id", "corrected"),
        ("duplicate_object", None, "annotations[3].bbox", "dropped"),
    ]
    assert [a["id"] for a in result["annotations"]] == [1, 2]


def test_unknown_references(clean):
    annotations = [box(1, image_id=9), box(2, category_id=9), box(3, category_id=None), "x"]
    result, report = clean([*annotations, box(None)])
    assert [(f.kind, f.id) for f in report.problems] == [
        ("unknown_image", 1),
        ("unknown_category", 2),
        ("unknown_category", 3),
        ("invalid_annotation", None),
        ("invalid_annotation", None),
    ]
    assert report.problems[3].field == "annotations[3]"
    assert [a["id"] for a in result["annotations"]] == [4]


def test_polygons_without_which_detectron2_would_lose_the_object(clean):
    whole = [10, 10, 18, 10, 18, 18]
    masks = ([[1, 2, 3, 4]], [whole, [1, NAN, 3, 4, 5, 6]], [whole])
    result, report = clean(
        [box(i, (10 + i, 10, 8, 8), segmentation=mask) for i, mask in enumerate(masks, start=1)]
    )
    assert [(f.kind, f.id) for f in report.problems] == [
        ("invalid_segmentation", 1),
        ("invalid_segmentation", 2),
    ]
    assert [a.get("segmentation") for a in result["annotations"]] == [None, [whole], [whole]]
    assert len(result["records"][0]["annotations"]) == 3


def test_other_segmentations_are_run_lengths_or_nothing(clean):
    runs = {"size": [48, 64], "counts": [0, 3072]}
    masks = [runs, {**runs, "counts": "abc"}, 5, "abc", {"counts": [1]}, {**runs, "counts": [NAN]}]
    result, report = clean([box(i, (i, 9, 8, 8), segmentation=m) for i, m in enumerate(masks)])
    assert found(report) == [
        ("invalid_segmentation", i, "segmentation", "corrected") for i in (2, 3, 4, 5)
    ]
    kept = [annotation.get("segmentation") for annotation in result["annotations"]]
    assert kept == [*masks[:2], None, None, None, None]
    assert len(result["records"][0]["annotations"]) == 6


def test_not_finite_numbers_anywhere_else_are_removed(clean):
    annotations = [box(1, score=NAN), box(2, (30, 30, 8, 8), score=0.5)]
    result, report = clean(annotations, info={"version": INFINITY})
    assert found(report) == [
        ("not_finite", 1, "score", "corrected"),
        ("not_finite", None, "info", "corrected"),
    ]
    assert [a.get("score") for a in result["annotations"]] == [None, 0.5]


def test_an_image_listed_twice_counts_once(clean):
    images = [
        {"id": 1, "file_name": "a.jpg"},
        {"id": 1, "file_name": "./a.jpg"},
        {"id": 2, "file_name": "a.jpg"},
    ]
    annotations = [box(1), box(2, image_id=2), box(3, (30, 30, 8, 8), image_id=2)]
    result, report = clean(annotations, images)
    assert [image["id"] for image in result["images"]] == [1]
    assert found(report) == [
        ("image_listed_twice", 1, "file_name", "merged"),
        ("image_listed_twice", 2, "file_name", "merged"),
        ("duplicate_annotation", 2, "bbox", "dropped"),
    ]
    assert [(a["id"], a["image_id"]) for a in result["annotations"]] == [(1, 1), (3, 1)]


def test_one_id_for_two_images(clean, tmp_path):
    write_image(tmp_path / "b.jpg")
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]
    result, report = clean([box()], images)
    assert found(report) == [("duplicate_image_id", 1, "", "dropped")]
    assert [image["file_name"] for image in result["images"]] == ["a.jpg"]


def test_images_that_cannot_be_used_are_named_with_their_annotations(clean, tmp_path):
    for name in ("a", "broken"):
        write_image(tmp_path / f"{name}.jpg")
    truncate(tmp_path / "broken.jpg")
    images = [
        {"id": i, "file_name": name} for i, name in enumerate(("a.jpg", "broken.jpg", "no.jpg"), 1)
    ]
    images += [{"id": 4}, {"id": 5.5, "file_name": "a.jpg"}, 6]
    annotations = [box(1), box(2, image_id=2), box(3, image_id=2), box(4, image_id=3)]
    result, report = clean(annotations, images)
    assert [(f.kind, f.file, f.id) for f in report.problems] == [
        ("invalid_image_record", "set.json", None),
        ("invalid_image_record", "set.json", None),
        ("invalid_image_record", "set.json", None),
        ("unreadable_image", "broken.jpg", 2),
        ("missing_image", "no.jpg", 3),
    ]
    assert [f.field for f in report.problems[:3]] == ["images[3]", "images[4]", "images[5]"]
    assert report.dropped_with_image == {2: 2, 3: 1}
    assert [a["id"] for a in result["annotations"]] == [1]
    assert report.read == {"images": 6, "annotations": 4}
    assert "3 annotations dropped with their 2 images" in report.summary()


def test_sizes_are_those_of_the_files(clean):
    images = [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}]
    result, report = clean([box(1, (60, 40, 100, 100))], images)
    assert [f.kind for f in report.problems] == ["image_size_mismatch", "box_leaves_image"]
    assert result["annotations"][0]["bbox"] == [60, 40, 4, 8]
    assert (result["images"][0]["width"], result["images"][0]["height"]) == (64, 48)


@pytest.mark.parametrize("size, kind", [((64, 48), "rotated_image"), ((48, 64), None)])
def test_exif_rotation_and_the_frame_of_the_boxes(clean, tmp_path, size, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    write_image(tmp_path / "turned.png", 64, 48, exif=exif)
    images = [{"id": 1, "file_name": "turned.png", "width": size[0], "height": size[1]}]
    triangle = [1, 2, 11, 2, 11, 8]
    result, report = clean([box(1, (1, 2, 10, 6), segmentation=[triangle])], images)
    assert (result["images"][0]["width"], result["images"][0]["height"]) == (48, 64)
    (annotation,) = result["annotations"]
    if kind:
        # (x, y) of the stored 64 x 48 becomes (48 - y, x).
        assert [f.kind for f in report.problems] == [kind]
        assert annotation["bbox"] == [40, 1, 6, 10]
        assert annotation["segmentation"] == [[46, 1, 46, 11, 40, 11]]
    else:
        assert not report.problems
        assert [note.kind for note in report.notes] == ["exif_orientation"]
        assert annotation["bbox"] == [1, 2, 10, 6]


def test_gaps_in_category_ids_stay(clean):
    categories = [{"id": 7, "name": "b"}, {"id": 3, "name": "a"}, {"id": 9, "name": "c"}]
    result, report = clean([box(1, category_id=7)], categories=categories)
    assert not report.problems
    kinds = [note.kind for note in report.notes]
    assert kinds == ["category_gap", "class_without_object", "class_without_object"]
    assert "from 3 to 9, without [1, 2, 4, 5, 6, 8]" in report.notes[0].message
    assert result["records"][0]["annotations"][0]["category_id"] == 1  # a, b, c


@pytest.mark.parametrize(
    "categories, message",
    [
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "2 categories with the id 1"),
        ([{"id": "1", "name": "a"}], "needs an integer id and a name"),
        ([{"id": 1}], "needs an integer id and a name"),
    ],
)
def test_classes_that_cannot_be_told_apart(clean, categories, message):
    with pytest.raises(ValueError, match=message):
        clean([], categories=categories)


def test_equal_names_are_told_apart_by_their_ids(clean):
    categories = [{"id": 1, "name": "a"}, {"id": 4, "name": "b"}, {"id": 7, "name": "a"}]
    coco, report = clean([box()], categories=categories)
    assert [(f.kind, f.id) for f in report.problems] == [("duplicate_category_name", 7)]
    assert [(c["id"], c["name"]) for c in coco["categories"]] == [
        (1, "a (1)"),
        (4, "b"),
        (7, "a (7)"),
    ]
    report.count(coco)
    objects = {name: row["objects"] for name, row in report.counts["by_class"].items()}
    assert objects == {"a (1)": 1, "b": 0, "a (7)": 0}


@pytest.mark.parametrize("content", [[], {"images": []}, {"images": {}, "annotations": []}])
def test_content_that_is_no_coco(content, tmp_path):
    with pytest.raises(ValueError, match="is no COCO-format data set"):
        clean_coco(content, tmp_path, Report("set", "set.json"), progress=False)


def test_empty_images_are_kept_and_named(clean):
    _, report = clean()
    assert [(note.kind, note.file) for note in report.notes] == [
        ("empty_image", "a.jpg"),
        ("class_without_object", "set.json"),
    ]
    assert report.counts["images_without_object"] == 1


def test_an_image_whose_annotations_were_dropped_says_which(clean):
    _, report = clean([box(7, (10, 10, 0, 8))])
    assert report.notes[0].message == "its only annotation was dropped: id 7 (empty_box)"
    _, report = clean([box(i, (NAN, 1, 2, 3)) for i in range(1, 6)])
    assert report.notes[0].message == (
        "all its 5 annotations were dropped: id 1 (invalid_box), id 2 (invalid_box), "
        "id 3 (invalid_box), ..."
    )


def test_the_summary_names_examples_and_the_rest_is_in_the_report(clean):
    _, report = clean([box(i, (NAN, 1, 2, 3)) for i in range(1, 6)])
    summary = report.summary()
    assert "invalid_box: boxes that are not four finite numbers (5 dropped)" in summary
    assert "set.json, id 3, bbox: the box [nan, 1, 2, 3]" in summary
    assert "id 4" not in summary and "... 2 more in the report" in summary
    assert len(json.loads(json.dumps(report.as_dict(), allow_nan=False))["problems"]) == 5
