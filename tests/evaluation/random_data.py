"""Random ground truth and detections that have every kind of error."""

import numpy as np

from efpn_d2.evaluation.coco_arrays import Detections, GroundTruth


def ground_truth(image, boxes, classes, num_images, num_classes, crowd=None) -> GroundTruth:
    """Objects sorted by image; the area is the box's."""
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    sizes = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    crowd = np.zeros(len(boxes), dtype=bool) if crowd is None else np.array(crowd, dtype=bool)
    images = [
        {"id": i, "file_name": f"{i}.png", "width": 100, "height": 80} for i in range(num_images)
    ]
    names = [f"class {k}" for k in range(num_classes)]
    image, classes = np.array(image, dtype=int), np.array(classes, dtype=int)
    return GroundTruth(images, names, list(range(num_classes)), image, boxes, classes, sizes, crowd)


def detections(image, boxes, classes, scores) -> Detections:
    """Detections in any order."""
    image, scores = np.array(image, dtype=int), np.array(scores, dtype=float)
    order = np.lexsort((-scores, image))
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    return Detections(
        image[order], boxes[order], np.array(classes, dtype=int)[order], scores[order]
    )


def random_data(seed: int, images: int = 12, classes: int = 3) -> tuple[GroundTruth, Detections]:
    """Crowded images, among them empty ones; shifted, confused and repeated detections."""
    rng = np.random.default_rng(seed)
    per_image = rng.integers(0, 9, images)
    image = np.repeat(np.arange(images), per_image)
    sizes = np.exp(rng.uniform(np.log(3), np.log(40), (len(image), 2)))
    corners = rng.uniform(0, 60, (len(image), 2))
    boxes = np.hstack([corners, corners + sizes])
    kinds = rng.integers(0, classes, len(image))
    truth = ground_truth(image, boxes, kinds, images, classes, rng.random(len(image)) < 0.1)
    if not len(image):
        return truth, detections([], [], [], [])
    picked = rng.integers(0, len(image), 4 * len(image))
    shift = rng.normal(0, 0.15, (len(picked), 4)) * np.tile(sizes[picked], 2)
    found = np.sort((boxes[picked] + shift).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    labels = np.where(
        rng.random(len(picked)) < 0.75, kinds[picked], rng.integers(0, classes, len(picked))
    )
    where = np.where(
        rng.random(len(picked)) < 0.9, image[picked], rng.integers(0, images, len(picked))
    )
    scores = rng.permutation(len(picked)) / len(picked)  # no two equal: the order is one
    return truth, detections(where, found, labels, scores)
