import numpy as np
import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, pairwise_iou

from efpn_d2.dataset_advice.anchors import (
    AnchorLevel,
    best_overlaps,
    count_overlaps,
    grid_sizes,
    measure_overlaps,
)
from efpn_d2.dataset_advice.detector import anchor_levels

pytestmark = pytest.mark.fast

STRIDES = [2, 4, 8, 16]


def make_generator(offset):
    return DefaultAnchorGenerator(
        sizes=[[4, 7], [9, 12], [18, 23], [40, 60]],
        aspect_ratios=[[0.5, 1.0, 2.0]],
        strides=STRIDES,
        offset=offset,
    )


def random_boxes(number, height, width, seed=0):
    rng = np.random.default_rng(seed)
    sides = 2 ** rng.uniform(1, 6, (number, 2))
    start = rng.uniform(0, 1, (number, 2)) * np.maximum((width, height) - sides, 0)
    boxes = np.concatenate([start, start + sides], axis=1)
    return np.minimum(boxes, (width, height) * 2)


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_equal_to_comparing_with_every_anchor(offset, threshold):
    """Of Detectron2's generator on the padded image, by Detectron2's IoU."""
    height, width = 75, 101
    boxes = random_boxes(60, height, width)
    generator = make_generator(offset)
    features = [torch.empty(1, 1, -(-96 // s), -(-128 // s)) for s in STRIDES]
    target = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
    ious = [pairwise_iou(target, anchors).double().numpy() for anchors in generator(features)]
    sizes = np.tile([height, width], (len(boxes), 1))
    found = measure_overlaps(boxes, sizes, anchor_levels(generator, list("abcd")), 32, threshold)
    per_level = np.stack([x.max(axis=1) for x in ious])
    np.testing.assert_allclose(found.best, per_level.max(axis=0), atol=1e-5)
    chosen = np.take_along_axis(per_level, found.level[None], axis=0)[0]
    np.testing.assert_allclose(chosen, found.best, atol=1e-5)
    counts = sum((x >= threshold).sum(axis=1) for x in ious)
    assert counts.max() > 1
    np.testing.assert_array_equal(found.counts, counts)


def test_by_hand():
    """Anchors of 4 px every 4 px, the first centred at 0, and an object of 4 px between two."""
    level = AnchorLevel("p2", 4.0, np.array([[-2.0, -2, 2, 2]]))
    boxes = np.array([[4.0, 6, 8, 10], [6, 6, 10, 10]])
    grid = np.full((2, 2), 4)
    # Half of it is in either of two anchors: 8 / (16 + 16 - 8); the other is an anchor.
    np.testing.assert_allclose(best_overlaps(boxes, grid, level)[:, 0], [1 / 3, 1.0])
    assert count_overlaps(boxes, grid, level, 0.33)[:, 0].tolist() == [2, 1]
    assert count_overlaps(boxes, grid, level, 0.34)[:, 0].tolist() == [0, 1]


def test_the_grid_ends():
    """An object beyond the last cell overlaps only the anchors there are."""
    level = AnchorLevel("p2", 4.0, np.array([[-2.0, -2, 2, 2]]))
    boxes = np.array([[6.0, 6, 10, 10]])  # centred on the cell (2, 2)
    for cells, best, count in ((3, 1.0, 1), (2, 0.0, 0)):
        grid = np.full((1, 2), cells)
        assert best_overlaps(boxes, grid, level)[0, 0] == pytest.approx(best)
        assert count_overlaps(boxes, grid, level, 0.5)[0, 0] == count


def test_images_are_padded():
    sizes = np.array([[75, 101], [64, 64]])
    assert grid_sizes(sizes, 2, 32).tolist() == [[48, 64], [32, 32]]
    assert grid_sizes(sizes, 64, 32).tolist() == [[2, 2], [1, 1]]
    assert grid_sizes(sizes, 4, 0).tolist() == [[19, 26], [16, 16]]
