import copy

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as run_lengths

from efpn_d2.config import add_efpn_config
from efpn_d2.data.augmentation import SmallObjectCopyPaste
from efpn_d2.data.mappers import build_train_mapper

pytestmark = pytest.mark.fast

WIDTH, HEIGHT = 90, 70


def copy_paste(**options):
    defaults = {"probability": 1.0, "max_copies": 4, "max_size": 32.0, "max_cover": 0.0}
    return SmallObjectCopyPaste(**{**defaults, **options})


def annotation(x, y, w, h, **more):
    box = {"bbox": [x, y, w, h], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 3, "iscrowd": 0}
    return {**box, **more}


def record(*annotations):
    return {"width": WIDTH, "height": HEIGHT, "annotations": list(annotations)}


def image_of(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def pixels_covered(first, second):
    """Pixels of the first box within the second, counted one by one on a fine grid."""
    x, y, w, h = first
    xs, ys = np.meshgrid(x + (np.arange(200) + 0.5) / 200 * w, y + (np.arange(200) + 0.5) / 200 * h)
    x, y, w, h = second
    return ((xs > x) & (xs < x + w) & (ys > y) & (ys < y + h)).mean()


@pytest.mark.parametrize("seed", range(20))
def test_copies_look_like_their_object_and_have_exact_boxes(seed):
    np.random.seed(seed)
    before = record(annotation(10.25, 20.5, 7.5, 5.25), annotation(50, 8, 6, 9))
    unchanged = copy.deepcopy(before)
    after, transform = copy_paste()(before)
    assert before == unchanged
    assert after["annotations"][:2] == before["annotations"]
    copies = after["annotations"][2:]
    assert 1 <= len(copies) <= 4
    image = image_of()
    pasted = transform.apply_image(image)
    moved_to = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for entry in copies:
        x, y, w, h = entry["bbox"]
        (original,) = (a for a in before["annotations"] if a["bbox"][2:] == [w, h])
        dx, dy = x - original["bbox"][0], y - original["bbox"][1]
        assert dx == int(dx) and dy == int(dy)
        x0, y0 = int(np.floor(x)), int(np.floor(y))
        x1, y1 = int(np.ceil(x + w)), int(np.ceil(y + h))
        assert min(x0, y0) >= 0 and x1 <= WIDTH and y1 <= HEIGHT
        dx, dy = int(dx), int(dy)
        expected = image[y0 - dy : y1 - dy, x0 - dx : x1 - dx]
        assert (pasted[y0:y1, x0:x1] == expected).all()
        moved_to[y0:y1, x0:x1] = True
    assert (pasted[~moved_to] == image[~moved_to]).all()
    assert (transform.apply_coords(np.ones((3, 2))) == 1).all()


@pytest.mark.parametrize("max_cover", [0.0, 0.3])
def test_no_object_is_covered_by_more_than_its_share(max_cover):
    crowded = record(
        annotation(5, 5, 12, 12),
        annotation(30, 5, 50, 40),
        annotation(0, 30, 25, 38, iscrowd=1),
        annotation(40, 50, 12, 12),
    )
    most = 0.0
    for seed in range(60):
        np.random.seed(seed)
        after, _ = copy_paste(max_cover=max_cover)(crowded)
        boxes = [a["bbox"] for a in after["annotations"]]
        for later in range(4, len(boxes)):
            shares = [pixels_covered(other, boxes[later]) for other in boxes[:later]]
            most = max(most, *shares)
    assert most <= max_cover + 0.01
    if max_cover:
        assert most > 0.1  # what is allowed happens


def test_only_small_single_objects_are_copied():
    crowd = annotation(10, 10, 8, 8, iscrowd=1)
    large = annotation(10, 10, 33, 33)
    touching = (annotation(40, 40, 9, 9), annotation(44, 44, 9, 9))
    for members in ((crowd,), (large,), touching, ()):
        given = record(*members)
        after, transform = copy_paste()(given)
        assert after is given and transform is None


def test_no_place_is_no_copy():
    given = record(annotation(0, 0, WIDTH, HEIGHT), annotation(10, 10, 8, 8))
    after, transform = copy_paste(max_cover=0.0)(given)
    assert after is given and transform is None


def test_the_probability_is_kept():
    given = record(annotation(10, 10, 8, 8))
    np.random.seed(0)
    hits = sum(copy_paste(probability=0.3)(given)[1] is not None for _ in range(1000))
    assert 250 < hits < 350


@pytest.mark.parametrize("kind", ["polygon", "run lengths"])
def test_of_a_mask_only_its_pixels_are_copied(kind):
    triangle = [10.0, 10.0, 22.0, 10.0, 10.0, 22.0]
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    mask = (xs >= 10) & (ys >= 10) & (xs - 10 + ys - 10 < 12)
    encoded = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    segmentation = [triangle] if kind == "polygon" else encoded
    np.random.seed(3)
    given = record(annotation(10, 10, 12, 12, segmentation=segmentation))
    after, transform = copy_paste(max_copies=1)(given)
    (_, moved) = after["annotations"]
    dx, dy = int(moved["bbox"][0] - 10), int(moved["bbox"][1] - 10)
    if kind == "polygon":
        assert moved["segmentation"] == [(np.array(triangle) + [dx, dy] * 3).tolist()]
        allowed = 12  # pixels that the outline cuts
    else:
        shifted = run_lengths.decode(moved["segmentation"]).astype(bool)
        assert (shifted == np.roll(mask, (dy, dx), axis=(0, 1))).all()
        allowed = 0
    image = image_of()
    changed = (transform.apply_image(image) != image).any(axis=2)
    assert (changed & ~np.roll(mask, (dy, dx), axis=(0, 1))).sum() <= allowed
    assert changed.sum() >= mask.sum() - allowed - 5


def test_keypoints_move_along():
    np.random.seed(0)
    given = record(annotation(10, 10, 8, 8, keypoints=[12, 13, 2, 14, 15, 1]))
    after, _ = copy_paste(max_copies=1)(given)
    moved = after["annotations"][1]
    dx, dy = moved["bbox"][0] - 10, moved["bbox"][1] - 10
    assert moved["keypoints"] == [12 + dx, 13 + dy, 2, 14 + dx, 15 + dy, 1]


@pytest.mark.parametrize(
    "option",
    [{"probability": 1.5}, {"max_copies": 0}, {"max_size": 0.0}, {"max_cover": 1.0}],
)
def test_options_out_of_range(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"DATA.COPY_PASTE_{name.upper()} is"):
        copy_paste(**option)


def test_in_the_mapper_boxes_and_pixels_stay_together(tmp_path):
    """A bright object on black, copied, resized and flipped: boxes are where it is bright."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[20:28, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    cfg = get_cfg()
    add_efpn_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN = (2 * HEIGHT,)
    cfg.DATA.COPY_PASTE_PROBABILITY = 1.0
    mapper = build_train_mapper(cfg)
    given = {**record(annotation(10, 20, 10, 8)), "file_name": str(tmp_path / "a.png")}
    numbers = set()
    for seed in range(10):
        np.random.seed(seed)
        sample = mapper(copy.deepcopy(given))
        bright = sample["image"].numpy().max(axis=0) > 127
        expected = np.zeros_like(bright)
        boxes = sample["instances"].gt_boxes.tensor.numpy()
        for x0, y0, x1, y1 in boxes.astype(int):
            expected[y0:y1, x0:x1] = True
        assert (bright == expected).mean() > 0.995
        assert (bright & expected).sum() > 0.95 * expected.sum()
        numbers.add(len(boxes))
    assert min(numbers) >= 2 and max(numbers) > 2
    assert len(given["annotations"]) == 1
