"""Which crops of which images bring each class to about the same number of objects."""

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from efpn_d2.data.datasets.names import unique_names

# Windows that are tried for one that cuts no object, before the best of them is taken.
_TRIES = 20


@dataclass(frozen=True)
class BalanceOptions:
    """What to reach and how.

    Attributes:
        target: objects that a class is to have, those of the data set included.
        min_instances: classes with fewer objects are left as they are: thousands of crops around a
            handful of objects would teach a network these by heart. [ours]
        crop_scale: smallest and largest side of a crop, as shares of the image's.
        min_inside: an object that a crop cuts is kept, clipped, if at least this share of its area
            is inside; with less it is marked as ignored.
        color_jitter: brightness, contrast and saturation are each multiplied by 1 - x to 1 + x.
        seed: of everything that is drawn.

    Raises:
        ValueError: a number is out of its range.
    """

    target: int = 1000
    min_instances: int = 100
    crop_scale: tuple[float, float] = (0.5, 1.0)
    min_inside: float = 0.7
    color_jitter: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        for name, valid, rule in (
            ("target", self.target >= 1, "at least 1"),
            ("min_instances", self.min_instances >= 1, "at least 1"),
            ("crop_scale", 0 < low <= high <= 1, "two shares in their order, above 0, at most 1"),
            ("min_inside", 0 < self.min_inside <= 1, "above 0 and at most 1"),
            ("color_jitter", 0 <= self.color_jitter < 1, "at least 0 and below 1"),
            ("seed", self.seed >= 0, "at least 0"),
        ):
            if not valid:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be {rule}.")


class Crop(NamedTuple):
    """A crop of an image, with the objects in it.

    Attributes:
        image_id: of the image.
        window: x0, y0, x1, y1 in whole pixels of the image, half-open.
        colors: factors of brightness, contrast and saturation.
        objects: annotations with ``bbox`` (XYWH) in pixels of the crop; those that are cut too much
            are ``iscrowd``.
    """

    image_id: int | str
    window: tuple[int, int, int, int]
    colors: tuple[float, float, float]
    objects: list[dict[str, Any]]


def plan_crops(coco: dict[str, Any], options: BalanceOptions) -> list[Crop]:
    """Plan crops around objects of rare classes, from the annotations alone.

    Rarest class first, each of its objects gets a crop in turn until the class has ``target``
    objects. All objects in a crop count. The same input gives the same plan.

    Args:
        coco: a checked COCO-format data set.
        options: see :class:`BalanceOptions`.
    """
    rng = np.random.default_rng(options.seed)
    images = {image["id"]: image for image in coco["images"]}
    by_image, by_class = defaultdict(list), defaultdict(list)
    for annotation in coco["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
        if not annotation["iscrowd"]:
            by_class[annotation["category_id"]].append(annotation)
    counts = Counter({category: len(members) for category, members in by_class.items()})
    rare = [c for c, n in counts.items() if options.min_instances <= n < options.target]
    crops = []
    for category in sorted(rare, key=lambda c: (counts[c], c)):
        members = [by_class[category][i] for i in rng.permutation(len(by_class[category]))]
        for annotation in itertools.cycle(members):
            if counts[category] >= options.target:
                break
            image = images[annotation["image_id"]]
            crop = _draw_crop(image, annotation, by_image[image["id"]], options, rng)
            counts.update(o["category_id"] for o in crop.objects if not o["iscrowd"])
            crops.append(crop)
    return crops


def count_by_class(coco: dict[str, Any]) -> dict[str, int]:
    """Objects of each class by its name, of several the ids behind it; crowds do not count."""
    counts = Counter(a["category_id"] for a in coco["annotations"] if not a["iscrowd"])
    names = unique_names(coco["categories"])
    ids = [category["id"] for category in coco["categories"]]
    return {name: counts[id] for name, id in zip(names, ids, strict=True)}


def _draw_crop(
    image: dict[str, Any],
    target: dict[str, Any],
    annotations: list[dict[str, Any]],
    options: BalanceOptions,
    rng: np.random.Generator,
) -> Crop:
    boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64)
    best = _draw_window(image, target["bbox"], options.crop_scale, rng)
    fewest = _count_cut(boxes, best)
    for _ in range(_TRIES - 1):
        if fewest == 0:
            break
        window = _draw_window(image, target["bbox"], options.crop_scale, rng)
        cut = _count_cut(boxes, window)
        if cut < fewest:
            best, fewest = window, cut
    low, high = 1 - options.color_jitter, 1 + options.color_jitter
    colors = tuple(rng.uniform(low, high, size=3).tolist())
    return Crop(image["id"], best, colors, _objects_in(annotations, boxes, best, options))


def _draw_window(
    image: dict[str, Any],
    box: list[float],
    crop_scale: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """A window in the shape of the image that holds all of ``box``."""
    share = rng.uniform(*crop_scale)
    sides = []
    for limit, start, length in ((image["width"], box[0], box[2]), (image["height"], *box[1::2])):
        first = int(np.floor(start))
        last = min(int(np.ceil(start + length)), limit)
        size = min(max(round(share * limit), last - first), limit)
        low, high = max(last - size, 0), min(first, limit - size)
        begin = int(rng.integers(low, high + 1))
        sides.append((begin, begin + size))
    (x0, x1), (y0, y1) = sides
    return x0, y0, x1, y1


def _shares_inside(boxes: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    clipped = _clip(boxes, window)
    return clipped[:, 2:].prod(axis=1) / boxes[:, 2:].prod(axis=1)


def _count_cut(boxes: np.ndarray, window: tuple[int, int, int, int]) -> int:
    shares = _shares_inside(boxes, window)
    return int(((shares > 0) & (shares < 1)).sum())


def _clip(boxes: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """(R, 4) XYWH boxes as they are seen in a window, in its pixels; size 0 outside."""
    low = np.clip(boxes[:, :2], window[:2], window[2:])
    high = np.clip(boxes[:, :2] + boxes[:, 2:], window[:2], window[2:])
    # A box that lies inside keeps its size to the last bit.
    whole = (low == boxes[:, :2]) & (high == boxes[:, :2] + boxes[:, 2:])
    return np.concatenate([low - window[:2], np.where(whole, boxes[:, 2:], high - low)], axis=1)


def _objects_in(
    annotations: list[dict[str, Any]],
    boxes: np.ndarray,
    window: tuple[int, int, int, int],
    options: BalanceOptions,
) -> list[dict[str, Any]]:
    objects = []
    clipped, shares = _clip(boxes, window), _shares_inside(boxes, window)
    for annotation, box, share in zip(annotations, clipped.tolist(), shares, strict=True):
        if share > 0:
            objects.append(
                {
                    "category_id": annotation["category_id"],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(annotation["iscrowd"] or share < options.min_inside),
                    "source_annotation": annotation["id"],
                }
            )
    return objects
