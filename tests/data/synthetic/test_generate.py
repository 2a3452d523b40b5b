import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.data.datasets import load_coco_json
from pycocotools.coco import COCO

from efpn_d2.data.synthetic import (
    CLASS_NAMES,
    SyntheticConfig,
    generate_synthetic,
    synthetic_paths,
)
from efpn_d2.data.synthetic import generate as generate_module

pytestmark = pytest.mark.fast

SMALL = {"student_size": 96, "max_size": 32.0, "num_images": 6}


def make(root, workers=1, **options):
    config = SyntheticConfig(**{**SMALL, **options})
    return generate_synthetic(config, str(root), workers, progress=False)


def contents(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(Path(root).rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A finished split: its root and its files."""
    root = tmp_path_factory.mktemp("reference")
    make(root)
    return root, contents(root)


def test_seed_changes_every_image(reference, tmp_path):
    make(tmp_path, seed=1)
    other = contents(tmp_path)
    images = [name for name in reference[1] if name.endswith(".jpg")]
    assert len(images) == 6
    assert all(other[name] != reference[1][name] for name in images)


def test_image_does_not_depend_on_the_number_of_images(reference, tmp_path):
    make(tmp_path, num_images=2)
    short = contents(tmp_path)
    images = [name for name in short if name.endswith(".jpg")]
    assert len(images) == 2
    assert all(short[name] == reference[1][name] for name in images)
    make(tmp_path)  # lengthened in place
    assert contents(tmp_path) == reference[1]


def test_resume_redraws_what_is_missing_or_damaged_only(tmp_path, reference):
    json_file = make(tmp_path)
    _, image_dir = synthetic_paths("native2x", "train", str(tmp_path))
    json_file.unlink()
    (image_dir / "000001.jpg").unlink()
    damaged = image_dir / "000003.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    (image_dir / "000004.jpg").write_bytes(b"no image")
    (image_dir / ".000005.jpg.partial").write_bytes(b"left by an interruption")
    (image_dir / "000005.jpg").unlink()
    whole = {name: (image_dir / name).stat().st_mtime_ns for name in ("000000.jpg", "000002.jpg")}

    make(tmp_path)

    assert contents(tmp_path) == reference[1]
    for name, modified in whole.items():
        assert (image_dir / name).stat().st_mtime_ns == modified


def test_resume_after_an_interruption(tmp_path, reference, monkeypatch):
    render = generate_module.render_scene

    def interrupted(config, index, layout):
        if index == 3:
            raise KeyboardInterrupt
        return render(config, index, layout)

    monkeypatch.setattr(generate_module, "render_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path)
    json_file, image_dir = synthetic_paths("native2x", "train", str(tmp_path))
    assert not json_file.exists()
    assert len(list(image_dir.iterdir())) == 3
    monkeypatch.undo()
    make(tmp_path)
    assert contents(tmp_path) == reference[1]


def test_other_options_in_the_same_folder_are_refused(tmp_path):
    make(tmp_path, num_images=1)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"max_noise 6\.0 \(now 1\.0\), seed 0 \(now 5\)"):
        make(tmp_path, num_images=1, seed=5, max_noise=1.0)
    assert contents(tmp_path) == before


def test_other_options_are_fine_once_the_images_are_gone(tmp_path):
    make(tmp_path, num_images=1)
    for image in synthetic_paths("native2x", "train", str(tmp_path))[1].iterdir():
        image.unlink()
    first = json.loads(make(tmp_path / "other", num_images=1).read_text())
    assert json.loads(make(tmp_path, num_images=1, seed=5).read_text()) != first


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    """The same scenes in both variants, as PNG without noise: a list of (image 1x, image 2x)."""
    root = tmp_path_factory.mktemp("variants")
    found = {}
    for variant in ("native1x", "native2x"):
        json_file = make(root, variant=variant, image_format="png", max_noise=0.0)
        _, image_dir = synthetic_paths(variant, "train", str(root))
        images = [cv2.imread(str(path)) for path in sorted(image_dir.glob("*.png"))]
        found[variant] = (json.loads(json_file.read_text()), images)
    return found


def test_native1x_is_the_average_of_native2x(variants):
    pairs = list(zip(variants["native1x"][1], variants["native2x"][1], strict=True))
    assert len(pairs) == 6
    for small, large in pairs:
        assert small.shape == (96, 96, 3)
        mean = large.reshape(96, 2, 96, 2, 3).mean(axis=(1, 3))
        assert np.abs(small - mean).max() <= 0.5


def test_noisy_jpegs_of_the_variants_show_the_same_scene(tmp_path):
    images = []
    for variant in ("native1x", "native2x"):
        make(tmp_path, variant=variant, num_images=1)
        _, image_dir = synthetic_paths(variant, "train", str(tmp_path))
        images.append(cv2.imread(str(image_dir / "000000.jpg")).astype(float))
    mean = images[1].reshape(96, 2, 96, 2, 3).mean(axis=(1, 3))
    assert np.corrcoef(images[0].ravel(), mean.ravel())[0, 1] > 0.97
    assert np.abs(images[0] - mean).max() > 1  # each has noise of its own


def test_annotations_halve_exactly(variants):
    small, large = (variants[name][0]["annotations"] for name in ("native1x", "native2x"))
    assert len(small) == len(large) > 10
    for one, two in zip(small, large, strict=True):
        assert [2 * value for value in one["bbox"]] == two["bbox"]
        assert [2 * value for value in one["segmentation"][0]] == two["segmentation"][0]
        assert 4 * one["area"] == two["area"] == two["bbox"][2] * two["bbox"][3]
        assert (one["id"], one["category_id"]) == (two["id"], two["category_id"])


def test_json_is_consistent(variants):
    content = variants["native2x"][0]
    assert [image["file_name"] for image in content["images"]] == [f"{i:06d}.png" for i in range(6)]
    assert [entry["name"] for entry in content["categories"]] == list(CLASS_NAMES)
    assert [entry["id"] for entry in content["annotations"]] == list(
        range(1, len(content["annotations"]) + 1)
    )
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        points = np.reshape(entry["segmentation"][0], (-1, 2))
        np.testing.assert_array_equal(points.min(axis=0), [x, y])
        np.testing.assert_array_equal(points.max(axis=0), [x + w, y + h])
        assert x >= 0 and y >= 0 and x + w <= 192 and y + h <= 192


def test_detectron2_loads_and_maps_it(reference):
    root, _ = reference
    json_file, image_dir = synthetic_paths("native2x", "train", str(root))
    records = load_coco_json(str(json_file), str(image_dir))
    record = next(record for record in records if len(record["annotations"]) > 2)
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MIN_SIZE_TRAIN = (192,)
    cfg.INPUT.RANDOM_FLIP = "none"
    mapped = DatasetMapper(cfg, is_train=True)(record)

    assert mapped["image"].shape == (3, 192, 192)
    expected = np.array([entry["bbox"] for entry in record["annotations"]])
    expected[:, 2:] += expected[:, :2]
    np.testing.assert_allclose(mapped["instances"].gt_boxes.tensor, expected, atol=1e-4)
    # A circle, triangle or square fills 0.45 to 1 of its box.
    areas = mapped["instances"].gt_masks.area().numpy()
    boxes = mapped["instances"].gt_boxes.area().numpy()
    assert ((areas > 0.4 * boxes) & (areas <= boxes * 1.001)).all()


def test_pycocotools_reads_the_polygons(reference):
    root, _ = reference
    coco = COCO(str(synthetic_paths("native2x", "train", str(root))[0]))
    for annotation in coco.loadAnns(coco.getAnnIds()):
        ys, xs = np.nonzero(coco.annToMask(annotation))
        x, y, w, h = annotation["bbox"]
        np.testing.assert_allclose([xs.min(), ys.min()], [x, y], atol=2.0)
        np.testing.assert_allclose([xs.max() + 1, ys.max() + 1], [x + w, y + h], atol=2.0)


def test_signs_are_visible_in_the_file(variants):
    """Inside their boxes, unhidden circles show their red rim and white face."""
    content, images = variants["native2x"]
    checked = 0
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        if entry["category_id"] > 3 or entry["visible"] < 0.99 or w < 24:
            continue
        crop = images[entry["image_id"] - 1][round(y) : round(y + h), round(x) : round(x + w)]
        blue, green, red = np.moveaxis(crop.astype(int), 2, 0)
        middle = (round(h / 2), round(0.055 * w))
        assert red[middle] > 2 * blue[middle], entry
        face = (round(h * 0.5), round(0.19 * w))
        assert abs(red[face] - blue[face]) < 40, entry
        checked += 1
    assert checked >= 1


def test_a_tiny_image_can_be_made(tmp_path):
    json_file = make(tmp_path, student_size=16, max_size=8.0, num_images=8)
    assert len(json.loads(json_file.read_text())["images"]) == 8
