import json
from collections import Counter

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

import balance_dataset as tool
from efpn_d2.data.balancing import BalanceOptions, balance_dataset, count_by_class, plan_crops
from efpn_d2.data.balancing import crops as crops_module
from efpn_d2.data.datasets.prepare import prepare
from efpn_d2.data.datasets.prepared import PreparedFiles, register_prepared
from efpn_d2.data.datasets.source import RawDataset
from efpn_d2.data.datasets.validation import Report
from tests.data.datasets.conftest import catalogs  # noqa: F401
from tests.data.datasets.trees import truncate

pytestmark = pytest.mark.fast

WIDTH, HEIGHT = 120, 80
OPTIONS = BalanceOptions(target=12, min_instances=2, color_jitter=0.0)


def make_coco(number=8):
    """Objects of three classes: 2 per image, one in every other, and one altogether."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for image_id in range(1, number + 1):
        images.append(
            {"id": image_id, "file_name": f"{image_id}.png", "width": WIDTH, "height": HEIGHT}
        )
        categories = [1, 1, *([2] if image_id % 2 else []), *([3] if image_id == 1 else [])]
        for category in categories:
            w, h = rng.uniform(4, 16, size=2)
            x, y = rng.uniform(0, WIDTH - w), rng.uniform(0, HEIGHT - h)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": f"class{i}"} for i in (1, 2, 3)]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def prepared(tmp_path):
    """A prepared data set below ``tmp_path / sets`` whose pixels say where they are."""
    coco, folder = make_coco(), tmp_path / "images"
    folder.mkdir()
    ys, xs = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    for image in coco["images"]:
        pixels = np.stack([2 * xs, 3 * ys, np.full_like(xs, 20 * image["id"])], axis=-1)
        Image.fromarray(pixels).save(folder / image["file_name"])
    files = PreparedFiles(tmp_path / "sets" / "prepared", "signs")
    raw = RawDataset(coco, folder, "tt100k", evaluated_classes=["class1"])
    prepare(raw, files, Report("signs", "test"), progress=False)
    return files


def run(prepared, options=OPTIONS, **more):
    files = PreparedFiles(prepared.folder, "signs_crops")
    image_root = prepared.folder.parent.parent / "images"
    result = balance_dataset(prepared.json_file, image_root, files, options, progress=False, **more)
    return result, files, prepared.folder / "signs_crops"


def test_rare_classes_reach_the_target_and_the_rarest_stay():
    coco = make_coco()
    before = count_by_class(coco)
    assert before == {"class1": 16, "class2": 4, "class3": 1}
    added = Counter()
    crops = plan_crops(coco, OPTIONS)
    for crop in crops:
        added.update(o["category_id"] for o in crop.objects if not o["iscrowd"])
    # Each crop is made for an object of class 2 and holds one of it, so it ends at the target.
    assert len(crops) == 8
    assert before["class2"] + added[2] == 12
    # Every one of its objects is used in turn.
    assert Counter(crop.image_id for crop in crops) == {1: 2, 3: 2, 5: 2, 7: 2}


def test_plans_are_repeatable_and_follow_the_seed():
    coco = make_coco()
    assert plan_crops(coco, OPTIONS) == plan_crops(coco, OPTIONS)
    other = BalanceOptions(target=12, min_instances=2, color_jitter=0.0, seed=1)
    assert plan_crops(coco, other) != plan_crops(coco, OPTIONS)


def inside(box, window):
    """Independently: the clipped box in pixels of the window, and the share that is inside."""
    x0, y0 = max(box[0], window[0]), max(box[1], window[1])
    x1, y1 = min(box[0] + box[2], window[2]), min(box[1] + box[3], window[3])
    area = max(x1 - x0, 0) * max(y1 - y0, 0)
    return [x0 - window[0], y0 - window[1], x1 - x0, y1 - y0], area / (box[2] * box[3])


@pytest.mark.parametrize("wide", [False, True])
def test_objects_in_crops_are_those_of_the_images(wide):
    coco = make_coco(40)
    if wide:  # an object that no crop can have without cutting it
        for annotation in coco["annotations"][::2]:
            annotation["bbox"] = [1.5, 30.25, 117.0, 12.5]
    options = BalanceOptions(target=100, min_instances=2, crop_scale=(0.2, 0.6), min_inside=0.5)
    states = Counter()
    for crop in plan_crops(coco, options):
        x0, y0, x1, y1 = crop.window
        assert 0 <= x0 < x1 <= WIDTH and 0 <= y0 < y1 <= HEIGHT  # noqa: SIM300
        assert wide or x1 - x0 <= 0.6 * WIDTH + 1
        assert all(0.75 <= factor <= 1.25 for factor in crop.colors)
        found = {o["source_annotation"]: o for o in crop.objects}
        for annotation in coco["annotations"]:
            if annotation["image_id"] != crop.image_id:
                assert annotation["id"] not in found
                continue
            box, share = inside(annotation["bbox"], crop.window)
            if share == 0:
                assert annotation["id"] not in found
                continue
            item = found[annotation["id"]]
            assert item["bbox"] == pytest.approx(box)
            assert item["category_id"] == annotation["category_id"]
            assert item["iscrowd"] == int(share < 0.5)
            states["whole" if share > 0.999 else "ignored" if item["iscrowd"] else "clipped"] += 1
    if wide:
        assert min(states[key] for key in ("whole", "clipped", "ignored")) > 0
    else:  # windows that cut no object are preferred
        assert states["whole"] > 20 * (states["clipped"] + states["ignored"])


def test_an_object_larger_than_the_crop_enlarges_it():
    coco = make_coco(2)
    coco["annotations"] = coco["annotations"][:1]
    coco["annotations"][0]["bbox"] = [10.5, 0, 100, 80]
    options = BalanceOptions(target=3, min_instances=1, crop_scale=(0.1, 0.1))
    for crop in plan_crops(coco, options):
        assert crop.window[0] <= 10 and crop.window[2] >= 111
        assert (crop.window[1], crop.window[3]) == (0, 80)


def test_the_written_pixels_are_those_of_the_window(prepared):
    result, _, folder = run(prepared)
    assert len(list(folder.iterdir())) == len(result["images"]) == 8
    for image in result["images"]:
        x0, y0, x1, y1 = image["source_window"]
        pixels = np.asarray(Image.open(folder / image["file_name"])).astype(int)
        ys, xs = np.mgrid[y0:y1, x0:x1]
        expected = np.stack([2 * xs, 3 * ys, np.full_like(xs, 20 * image["source_image"])], -1)
        assert np.abs(pixels - expected).mean() < 2  # JPEG


def test_colours_by_hand():
    pixels = np.array([[[100, 50, 0], [60, 60, 60]]], dtype=np.uint8)
    change = crops_module._change_colors
    assert change(pixels, (1.5, 1.0, 1.0)).tolist() == [[[150, 75, 0], [90, 90, 90]]]
    # The mean is 55: 55 + 2 * (100 - 55) = 145, ..., limited to 0.
    assert change(pixels, (1.0, 2.0, 1.0)).tolist() == [[[145, 45, 0], [65, 65, 65]]]
    # Gray of the first is 0.299 * 100 + 0.587 * 50 = 59.25; without saturation all are that.
    assert change(pixels, (1.0, 1.0, 0.0)).tolist() == [[[59, 59, 59], [60, 60, 60]]]


def test_the_crops_are_a_data_set_beside_the_first(prepared, catalogs, monkeypatch):  # noqa: F811
    run(prepared)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(prepared.folder.parent))
    assert register_prepared("signs") and register_prepared("signs_crops")
    first, second = MetadataCatalog.get("signs"), MetadataCatalog.get("signs_crops")
    assert first.thing_classes == second.thing_classes
    assert (second.protocol, second.evaluated_classes) == ("tt100k", ["class1"])
    assert len(DatasetCatalog.get("signs_crops")) == 8


def test_interrupted_it_goes_on_where_it_stopped(prepared, monkeypatch):
    _, files, folder = run(prepared)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    content = files.json_file.read_text()
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "000003.jpg").unlink()
    truncate(folder / "000005.jpg")
    files.json_file.unlink()
    run(prepared, workers=1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert files.json_file.read_text() == content
    again = {path.name for path in folder.iterdir() if path.stat().st_mtime_ns != times[path.name]}
    assert again == {"000003.jpg", "000005.jpg"}


def test_other_options_or_annotations_are_refused(prepared):
    run(prepared)
    with pytest.raises(ValueError, match="were made with other seed"):
        run(prepared, BalanceOptions(target=12, min_instances=2, color_jitter=0.0, seed=5))
    prepared.json_file.write_text(json.dumps(make_coco(3)))
    with pytest.raises(ValueError, match="were made with other annotations"):
        run(prepared)


@pytest.mark.parametrize(
    "option",
    [
        {"target": 0},
        {"min_instances": 0},
        {"crop_scale": (0.6, 0.5)},
        {"crop_scale": (0.5, 1.1)},
        {"min_inside": 0.0},
        {"color_jitter": 1.0},
        {"seed": -1},
    ],
)
def test_options_out_of_range(option):
    with pytest.raises(ValueError, match=f"^{next(iter(option))} is .*, but must be"):
        BalanceOptions(**option)


def test_as_a_command(prepared, capsys):
    args = ["--source", str(prepared.json_file), "--quiet", "--target", "12"]
    tool.main([*args, "--min-instances", "2"])
    output = capsys.readouterr().out
    assert "class2: 4 + 8 in crops" in output
    assert (
        "no crops of their own, for they have fewer than 2 objects (--min-instances): class"
        in output
    )
    assert "DATASETS.TRAIN \"('signs', 'signs_crops')\"" in output
    with pytest.raises(SystemExit):
        tool.main(args)  # other options
    assert "were made with other min_instances" in capsys.readouterr().err
    prepared.description.unlink()
    with pytest.raises(SystemExit):
        tool.main(args)
    assert "run tools/prepare_dataset.py first" in capsys.readouterr().err
