import math

import pytest
import torch
from detectron2.structures import Boxes

from efpn_d2.losses.foreground_mask import foreground_contrast, foreground_mask_losses

pytestmark = pytest.mark.fast


def boxes(*rows):
    return Boxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4))


def logit(p):
    return math.log(p / (1 - p))


def test_hand_computed():
    # Two cells of stride 4, the first covered: M = (0.75, 0.25), B = (1, 0).
    logits = {"p2": torch.tensor([[[[logit(0.75), logit(0.25)]]]])}
    losses = foreground_mask_losses(logits, [boxes([0, 0, 4, 4])], {"p2": 4})
    assert losses["bce"].item() == pytest.approx(-math.log(0.75))
    assert losses["dice"].item() == pytest.approx(1 - (2 * 0.75 + 1) / (1 + 1 + 1))


def test_levels_and_images_are_averaged():
    one = torch.tensor([[[[logit(0.75), logit(0.25)]]]])
    other = torch.tensor([[[[logit(0.5)]]]])
    covered = boxes([0, 0, 4, 4])
    both = foreground_mask_losses({"p2": one, "p3": other}, [covered], {"p2": 4, "p3": 8})
    alone = [
        foreground_mask_losses({"p2": one}, [covered], {"p2": 4}),
        foreground_mask_losses({"p3": other}, [covered], {"p3": 8}),
    ]
    for term in ("bce", "dice"):
        assert both[term].item() == pytest.approx(sum(x[term].item() for x in alone) / 2)
    two_images = torch.cat([one, -one])
    pair = foreground_mask_losses({"p2": two_images}, [covered, boxes()], {"p2": 4})
    # Of the second image, whose mask is (0.25, 0.75) and no box: 1 - 1 / (1 + 1).
    assert pair["dice"].item() == pytest.approx((1 - 2.5 / 3 + 0.5) / 2)


def test_no_box_is_finite_and_differentiable():
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    losses = foreground_mask_losses({"p2": logits}, [boxes()], {"p2": 4})
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert (logits.grad > 0).all()  # towards no mask


def test_half_precision_is_computed_in_full():
    logits = {"p2": torch.full((1, 1, 4, 4), 20.0, dtype=torch.float16)}
    losses = foreground_mask_losses(logits, [boxes([0, 0, 4, 4])], {"p2": 4})
    assert losses["bce"].dtype == torch.float32
    assert losses["bce"].item() == pytest.approx(20 * 15 / 16, rel=1e-4)


def test_contrast():
    logits = {"p2": torch.tensor([[[[logit(0.75), logit(0.25)]]]]), "p3": torch.zeros(1, 1, 1, 1)}
    contrast = foreground_contrast(logits, [boxes([0, 0, 4, 4])], {"p2": 4, "p3": 8})
    assert contrast == {"p2": pytest.approx(0.5)}  # all of p3 is covered
    assert foreground_contrast(logits, [boxes()], {"p2": 4, "p3": 8}) == {}
