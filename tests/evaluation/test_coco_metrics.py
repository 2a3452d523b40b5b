"""Protocols of the COCO family, on every backend, against a slow implementation of the rules."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as mask_util

from efpn_d2.evaluation import COCO_PROTOCOLS, AreaBin, CocoProtocol, evaluate_coco
from efpn_d2.evaluation.coco_backends import BACKENDS, backend_version, choose_backend
from tests.evaluation.coco_files import annotation, dataset, random_dataset

pytestmark = pytest.mark.fast

PROTOCOL = CocoProtocol(
    "test",
    (AreaBin("tiny", 0, 64), AreaBin("rest", 64, 1e10)),
    iou_thresholds=(0.25, 0.5, 0.9),
    max_dets=(1, 3, 100),
)


@pytest.fixture(params=BACKENDS)
def backend(request):
    pytest.importorskip(BACKENDS[request.param])
    return request.param


def overlap(found, annotated, crowd):
    width = min(found[0] + found[2], annotated[0] + annotated[2]) - max(found[0], annotated[0])
    height = min(found[1] + found[3], annotated[1] + annotated[3]) - max(found[1], annotated[1])
    if width <= 0 or height <= 0:
        return 0
    area = found[2] * found[3]
    return width * height / (area if crowd else area + annotated[2] * annotated[3] - width * height)


def verdicts(coco, results, label, threshold, low, high, limit, excuse_outside):
    """(score, "true" / "false") of what counts, in the order of the images, and the objects."""
    rows, objects = [], 0
    for image in coco["images"]:
        truth = []
        for entry in coco["annotations"]:
            if entry["image_id"] == image["id"] and entry["category_id"] == label:
                outside = not low <= entry["area"] <= high
                crowd = bool(entry["iscrowd"]) or (outside and excuse_outside)
                ignored = crowd or outside
                truth.append(
                    {"box": entry["bbox"], "crowd": crowd, "ignored": ignored, "free": True}
                )
        objects += sum(not target["ignored"] for target in truth)
        found = [r for r in results if r["image_id"] == image["id"] and r["category_id"] == label]
        for result in sorted(found, key=lambda r: -r["score"])[:limit]:
            hit = None
            for ignored in (False, True):
                best = threshold
                for target in truth:
                    value = overlap(result["bbox"], target["box"], target["crowd"])
                    open_ = target["free"] or target["crowd"]
                    taken = hit is not None and hit["ignored"] != ignored
                    if target["ignored"] == ignored and open_ and value >= best and not taken:
                        hit, best = target, value
            area = result["bbox"][2] * result["bbox"][3]
            if hit is not None:
                hit["free"] = False
                if not hit["ignored"]:
                    rows.append((result["score"], "true"))
            elif low <= area <= high:
                rows.append((result["score"], "false"))
    return sorted(rows, key=lambda row: -row[0]), objects


def slow_class(*args, excuse_outside=False):
    """AP and recall of one class at one threshold."""
    rows, objects = verdicts(*args, excuse_outside)
    if not objects:
        return math.nan, math.nan
    curve, hits = [], 0
    for count, (_, verdict) in enumerate(rows, start=1):
        hits += verdict == "true"
        curve.append((hits / objects, hits / count))
    points = np.linspace(0, 1, 101)
    best = [max((p for r, p in curve if r >= point), default=0) for point in points]
    return sum(best) / 101, hits / objects


def check(coco, results, protocol, backend):
    result = evaluate_coco(coco, results, protocol, backend=backend)
    flags = {"excuse_outside": protocol.excuse_outside}
    for k, label in enumerate((1, 2, 3)):
        for a, area in enumerate(protocol.areas):
            for t, threshold in enumerate(protocol.iou_thresholds):
                rules = (coco, results, label, threshold, area.low, area.high)
                ap, recall = slow_class(*rules, protocol.max_dets[-1], **flags)
                got = result.precision[t, :, k, a, -1].mean()
                assert got == pytest.approx(ap, abs=1e-9, nan_ok=True)
                for m, limit in enumerate(protocol.max_dets):
                    _, recall = slow_class(*rules, limit, **flags)
                    got = result.recall[t, k, a, m]
                    assert got == pytest.approx(recall, abs=1e-9, nan_ok=True)
    return result


@pytest.mark.parametrize("seed", range(3))
def test_every_number_against_the_slow_implementation(seed, backend):
    coco, results = random_dataset(np.random.default_rng(seed))
    before = copy.deepcopy((coco, results))
    metrics = check(coco, results, PROTOCOL, backend).metrics()
    assert 5 < metrics["AP"] < 95
    assert (coco, results) == before


@pytest.mark.parametrize("seed", range(2))
def test_tinyperson_excuses_what_lies_on_objects_of_other_sizes(seed, backend):
    coco, results = random_dataset(np.random.default_rng(seed))
    protocol = replace(COCO_PROTOCOLS["tinyperson"], max_dets=(2, 200))
    check(coco, results, protocol, backend)
    stock = evaluate_coco(coco, results, replace(protocol, excuse_outside=False), backend=backend)
    ours = evaluate_coco(coco, results, protocol, backend=backend)
    assert not np.array_equal(ours.precision, stock.precision, equal_nan=True)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("name", ["coco", "aitod", "sodad", "tinyperson"])
def test_backends_agree(name, iou_type, backend):
    coco, results = random_dataset(np.random.default_rng(7), num_images=12)
    if iou_type == "segm":
        for entry in [*coco["annotations"], *results]:
            x, y, w, h = entry["bbox"]
            # Half of the box, so that boxes instead of masks would give other areas.
            (rle,) = mask_util.frPyObjects([[x, y, x + w, y, x, y + h]], 400, 400)
            entry["segmentation"] = {**rle, "counts": rle["counts"].decode()}
    expected = evaluate_coco(coco, results, COCO_PROTOCOLS[name], iou_type, backend="pycocotools")
    got = evaluate_coco(coco, results, COCO_PROTOCOLS[name], iou_type, backend=backend)
    assert got.metrics() == pytest.approx(expected.metrics(), abs=1e-9, nan_ok=True)
    np.testing.assert_allclose(got.precision, expected.precision, atol=1e-9)
    np.testing.assert_allclose(got.class_precision(), expected.class_precision(), atol=1e-9)
    assert any(value > 0 for key, value in got.metrics().items() if key.startswith("AP"))


def test_equal_scores_keep_the_order_of_the_results(backend):
    coco = dataset([annotation(1, 1, 1, [0, 0, 10, 10])], num_images=2)
    hit = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5}
    miss = hit | {"bbox": [50, 50, 10, 10]}
    for results, expected in (([hit, miss], 100), ([miss, hit], 50)):
        metrics = evaluate_coco(coco, results, COCO_PROTOCOLS["coco"], backend=backend).metrics()
        assert metrics["AP"] == pytest.approx(expected)
    # Between images, the one of the lower id comes first.
    results = [miss | {"image_id": 2}, hit]
    metrics = evaluate_coco(coco, results, COCO_PROTOCOLS["coco"], backend=backend).metrics()
    assert metrics["AP"] == pytest.approx(100)


def test_image_ids_may_be_text_and_images_be_chosen(backend):
    coco = dataset([annotation(1, 1, 1, [0, 0, 10, 10]), annotation(2, 2, 1, [0, 0, 10, 10])], 2)
    results = [{"image_id": 2, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5}]
    for entry in [*coco["annotations"], *results]:
        entry["image_id"] = f"image {entry['image_id']}"
    for image in coco["images"]:
        image["id"] = f"image {image['id']}"
    metrics = evaluate_coco(coco, results, COCO_PROTOCOLS["coco"], backend=backend).metrics()
    assert (metrics["AR100"], metrics["objects"]) == (50, 2)
    chosen = {"backend": backend, "img_ids": ["image 2"]}
    metrics = evaluate_coco(coco, results, COCO_PROTOCOLS["coco"], **chosen).metrics()
    assert (metrics["AR100"], metrics["objects"]) == (100, 1)


def test_nothing(backend):
    """No detection is 0, no object is NaN and never -1; no image is no error."""
    coco = dataset([annotation(1, 1, 1, [0, 0, 10, 10])], num_images=2)
    metrics = evaluate_coco(coco, [], COCO_PROTOCOLS["aitod"], backend=backend).metrics()
    assert metrics["AP"] == metrics["APt"] == metrics["AR1500"] == 0
    assert (metrics["oLRP"], metrics["oLRPFN"]) == (100, 100)
    assert math.isnan(metrics["APvt"]) and math.isnan(metrics["ARm"])
    assert math.isnan(metrics["oLRPLoc"]) and math.isnan(metrics["oLRPFP"])
    for empty in (dataset([], 2), dataset([], 0)):
        metrics = evaluate_coco(empty, [], COCO_PROTOCOLS["aitod"], backend=backend).metrics()
        counts = {k: v for k, v in metrics.items() if k.startswith("objects")}
        assert set(counts.values()) == {0}
        assert all(math.isnan(v) for k, v in metrics.items() if k not in counts)


def test_bins_of_the_presets():
    def sides(name):
        return [(b.key, math.sqrt(b.low), math.sqrt(b.high)) for b in COCO_PROTOCOLS[name].bins]

    assert sides("coco") == [("s", 0, 32), ("m", 32, 96), ("l", 96, 1e5)]
    assert sides("aitod") == [("vt", 0, 8), ("t", 8, 16), ("s", 16, 32), ("m", 32, 1e5)]
    assert COCO_PROTOCOLS["aitod"].max_dets == (1, 100, 1500)
    assert COCO_PROTOCOLS["coco"].max_dets == (1, 10, 100)
    for name in ("coco", "aitod", "sodad"):
        assert COCO_PROTOCOLS[name].iou_thresholds == pytest.approx(np.arange(0.5, 0.96, 0.05))


def test_objects_on_an_edge_are_in_both_bins_of_a_preset():
    """As in COCO's code, in which ranges are closed at both ends."""
    coco = dataset([annotation(1, 1, 1, [0, 0, 32, 32])])
    metrics = evaluate_coco(coco, [], COCO_PROTOCOLS["coco"]).metrics()
    assert (metrics["objects_s"], metrics["objects_m"], metrics["objects"]) == (1, 1, 1)


def test_sodad_is_about_small_objects():
    coco = dataset([annotation(1, 1, 1, [0, 0, 10, 10]), annotation(2, 1, 1, [100, 100, 40, 40])])
    result = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5}
    metrics = evaluate_coco(coco, [result], COCO_PROTOCOLS["sodad"]).metrics()
    assert (metrics["AP"], metrics["APeS"], metrics["APN"]) == pytest.approx((100, 100, 0))
    assert metrics["objects"] == 1


def test_tinyperson_takes_marked_boxes_for_crowds():
    marked = annotation(1, 1, 1, [0, 0, 100, 100], uncertain=True)
    coco = dataset([marked, annotation(2, 1, 1, [200, 200, 10, 10])])
    box = {"image_id": 1, "category_id": 1, "score": 0.9}
    results = [box | {"bbox": [x, 20, 10, 10]} for x in (20, 40)]
    results.append(box | {"bbox": [200, 200, 10, 10], "score": 0.5})
    metrics = evaluate_coco(coco, results, COCO_PROTOCOLS["tinyperson"]).metrics()
    assert metrics["AP50tiny2"] == metrics["AP25"] == pytest.approx(100)
    assert (metrics["objects"], metrics["objects_tiny2"]) == (1, 1)
    assert evaluate_coco(coco, results, COCO_PROTOCOLS["coco"]).metrics()["AP50"] < 50


def test_names_of_metrics():
    coco = dataset([annotation(1, 1, 1, [0, 0, 10, 10])])
    names = list(evaluate_coco(coco, [], COCO_PROTOCOLS["aitod"]).metrics())
    assert names == [
        *("AP", "AP50", "AP75", "APvt", "APt", "APs", "APm"),
        *("AR1", "AR100", "AR1500", "ARvt", "ARt", "ARs", "ARm"),
        *("oLRP", "oLRPLoc", "oLRPFP", "oLRPFN"),
        *("objects", "objects_vt", "objects_t", "objects_s", "objects_m"),
    ]
    changed = COCO_PROTOCOLS["coco"].changed(iou_thresholds=[0.3, 0.5], max_dets=[7])
    names = list(evaluate_coco(coco, [], changed).metrics())
    assert names[:3] == ["AP", "AP50", "APs"]
    assert "AR7" in names
    assert changed.notes == (
        "IoU thresholds are set by EVALUATION.IOU_THRESHOLDS",
        "limits of detections are set by EVALUATION.MAX_DETS",
    )


def test_the_rules_in_words():
    text = COCO_PROTOCOLS["aitod"].describe("pycocotools 2.0")
    assert text.startswith("protocol aitod; maxDets 1, 100, 1500; IoU 0.5, 0.55, ")
    assert "all 0 and more, vt 0 to 64, t 64 to 256, s 256 to 1024, m 1024 and more" in text
    assert text.endswith("; backend pycocotools 2.0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iou_thresholds": [0.5, 0.5]}, r"IOU_THRESHOLDS \[0.5, 0.5\] must be ascending"),
        ({"iou_thresholds": [0]}, r"must be ascending and in \(0, 1\]"),
        ({"max_dets": [100, 10]}, r"MAX_DETS \[100, 10\] must be ascending"),
        ({"max_dets": [0]}, "must be ascending numbers of detections"),
    ],
)
def test_bad_changes_end_in_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        COCO_PROTOCOLS["coco"].changed(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 7}, r"have the image_id 7, .*\(1 such ids\)"),
        ({"category_id": 9}, "have the category_id 9, which is not in the dataset"),
        ({"score": math.nan}, r"results\[1\] has the score nan, which must be a finite number"),
        ({"bbox": [0, 0, math.inf, 9]}, r"results\[1\] has the bbox .* be four finite numbers"),
    ],
)
def test_bad_results_end_in_one_sentence(changes, message):
    coco = dataset([annotation(1, 1, 1, [0, 0, 10, 10])])
    good = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}
    with pytest.raises(ValueError, match=message):
        evaluate_coco(coco, [good, good | changes], COCO_PROTOCOLS["coco"])


def test_choice_of_the_backend(monkeypatch):
    installed = {"faster_coco_eval", "pycocotools"}
    find_spec = "efpn_d2.evaluation.coco_backends.importlib.util.find_spec"
    monkeypatch.setattr(find_spec, lambda module: module in installed or None)
    assert choose_backend() == "faster-coco-eval"
    assert choose_backend("pycocotools") == "pycocotools"
    with pytest.raises(ModuleNotFoundError, match="is hotcoco, which is not installed: pip inst"):
        choose_backend("hotcoco")
    with pytest.raises(ValueError, match="BACKEND 'fast' is unknown: use auto or one of hotcoco"):
        choose_backend("fast")
    installed.remove("faster_coco_eval")
    assert choose_backend() == "pycocotools"
    assert backend_version("pycocotools").startswith("pycocotools 2.")
