import math

import pytest
import torch
from detectron2.structures import Boxes

from efpn_d2.losses import covered_cells, foreground_background_balanced_loss

pytestmark = pytest.mark.fast


def boxes(*rows: tuple[float, float, float, float]) -> Boxes:
    return Boxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4))


def test_by_hand():
    # One image, two channels, 2x3 cells of 4 px. |F_t - F| summed over channels per cell:
    #   3 0 1
    #   0 5 0
    targets = torch.tensor([[[[1.0, 0, 1], [0, 2, 0]], [[-2.0, 0, 0], [0, -3, 0]]]])
    features = torch.zeros_like(targets, requires_grad=True)
    # x 3..5 touches cells 0 and 1, y 0..4 only row 0.
    losses = foreground_background_balanced_loss(features, targets, [boxes((3, 0, 5, 4))], 4)
    assert losses["global"].item() == pytest.approx((3 + 1 + 5) / 12)
    assert losses["positive"].item() == pytest.approx((3 + 0) / (2 * 2))
    weighted = foreground_background_balanced_loss(
        features, targets, [boxes((3, 0, 5, 4))], 4, weight=0.5
    )
    assert weighted["positive"].item() == pytest.approx(0.375)
    assert weighted["global"].item() == losses["global"].item()
    losses["positive"].backward()
    grad = features.grad[0]
    assert grad[:, 0, 0].tolist() == [-0.25, 0.25]
    assert not grad[:, 1].any()
    assert not grad[:, 0, 2].any()


def test_positive_cells_are_counted_over_the_batch():
    targets = torch.zeros(2, 1, 2, 2)
    targets[0, 0, 0, 0], targets[1] = 6.0, 1.0
    per_image = [boxes((0, 0, 1, 1)), boxes((0, 0, 2, 1))]
    losses = foreground_background_balanced_loss(torch.zeros(2, 1, 2, 2), targets, per_image, 1)
    assert losses["positive"].item() == pytest.approx((6 + 1 + 1) / 3)


@pytest.mark.parametrize("per_image", [[boxes()], [boxes((50, 50, 60, 60))]])
def test_without_a_covered_cell_the_positive_term_is_zero_and_differentiable(per_image):
    features = torch.randn(1, 3, 4, 4, requires_grad=True)
    losses = foreground_background_balanced_loss(features, torch.randn(1, 3, 4, 4), per_image, 2)
    assert losses["positive"].item() == 0
    losses["positive"].backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


def covered_slowly(rows: list, size: tuple[int, int], stride: int) -> torch.Tensor:
    out = torch.zeros(size, dtype=torch.bool)
    for x1, y1, x2, y2 in rows:
        for row in range(size[0]):
            for column in range(size[1]):
                inside_x = math.floor(x1 / stride) <= column < math.ceil(x2 / stride)
                inside_y = math.floor(y1 / stride) <= row < math.ceil(y2 / stride)
                out[row, column] |= inside_x and inside_y
    return out


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_covered_cells_equal_a_loop_over_cells(stride, count):
    generator = torch.Generator().manual_seed(count)
    corners = torch.rand(count, 2, generator=generator) * 50 - 8
    rows = torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * 20], dim=1)
    expected = covered_slowly(rows.tolist(), (9, 11), stride)
    assert torch.equal(covered_cells([Boxes(rows)], (9, 11), stride)[0], expected)


def test_a_box_with_its_corners_exchanged_covers_nothing_and_erases_nothing():
    good, inverted = [4.0, 4.0, 12.0, 12.0], [14.0, 8.0, 2.0, 10.0]
    expected = covered_slowly([good], (8, 8), 2)
    assert torch.equal(covered_cells([boxes(good, inverted)], (8, 8), 2)[0], expected)
    assert not covered_cells([boxes(inverted)], (8, 8), 2).any()


def test_no_gradient_flows_to_the_target():
    features, targets = (torch.randn(1, 2, 4, 4, requires_grad=True) for _ in range(2))
    losses = foreground_background_balanced_loss(features, targets, [boxes((0, 0, 2, 2))], 1)
    sum(losses.values()).backward()
    assert targets.grad is None
    assert features.grad.any()


def test_half_precision_maps_are_compared_in_fp32():
    targets = torch.full((1, 64, 128, 128), 300.0, dtype=torch.float16)
    losses = foreground_background_balanced_loss(
        torch.zeros_like(targets), targets, [boxes((0, 0, 128, 128))], 1
    )
    assert losses["global"].dtype == torch.float32
    assert [v.item() for v in losses.values()] == [300.0, 300.0]


def test_maps_and_boxes_that_do_not_fit_are_one_clear_sentence():
    with pytest.raises(ValueError, match=r"shape \(1, 2, 4, 4\) and its target \(1, 2, 8, 8\)"):
        foreground_background_balanced_loss(
            torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 8, 8), [boxes()], 2
        )
    with pytest.raises(ValueError, match="boxes for 2 images, but 1 feature"):
        foreground_background_balanced_loss(
            torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), [boxes(), boxes()], 2
        )
