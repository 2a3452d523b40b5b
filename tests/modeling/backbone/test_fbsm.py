import pytest
import torch
from detectron2.layers import ShapeSpec

from efpn_d2.modeling.backbone.fbsm import ForegroundBackgroundSeparationModule

pytestmark = pytest.mark.fast

C = 4


def make(levels=("p2", "p3")):
    torch.manual_seed(0)
    shapes = {name: ShapeSpec(channels=C, stride=4) for name in levels}
    return ForegroundBackgroundSeparationModule(shapes)


def test_the_outputs_are_those_of_the_pyramid_in_training_too():
    fbsm, outputs = make(), pyramid()
    assert list(fbsm.train()(outputs)) == list(fbsm.eval()(outputs)) == list(outputs)


@torch.no_grad()
def test_gating_by_given_masks_is_the_forward_pass():
    fbsm, outputs = make(), pyramid()
    fbsm.gamma["p2"].fill_(0.5)
    masks = fbsm.mask_logits(outputs)
    assert list(masks) == ["p2", "p3"]
    assert torch.equal(masks["p2"], fbsm.mask["p2"](outputs["p2"]))
    gated, expected = fbsm.gate(outputs, masks), fbsm(outputs)
    assert all(torch.equal(gated[name], expected[name]) for name in outputs)
    closed = {"p2": torch.full_like(masks["p2"], -1e4)}
    assert torch.equal(fbsm.gate(outputs, closed)["p2"], outputs["p2"])


def pyramid():
    torch.manual_seed(1)
    return {name: torch.randn(2, C, 6, 8) for name in ("p2", "p3", "p4")}


@torch.no_grad()
def test_the_start_is_the_identity_bit_for_bit():
    outputs = pyramid()
    gated = make()(outputs)
    for name, x in outputs.items():
        assert torch.equal(gated[name], x)


@torch.no_grad()
def test_the_formula():
    fbsm, outputs = make(), pyramid()
    fbsm.gamma["p2"].fill_(0.5)
    fbsm.mask["p2"].weight.zero_()
    fbsm.mask["p2"].weight[0, 1, 1, 1] = 1.0  # the mask is channel 1
    gated = fbsm(outputs)
    mask = 1 / (1 + torch.exp(-outputs["p2"][:, 1:2]))
    torch.testing.assert_close(gated["p2"], outputs["p2"] * (1 + 0.5 * mask))
    assert torch.equal(gated["p3"], outputs["p3"])
    assert gated["p4"] is outputs["p4"]


def test_gamma_learns_from_the_first_step_and_the_masks_after_it():
    fbsm, outputs = make(), pyramid()
    sum(fbsm(outputs)[name].square().sum() for name in outputs).backward()
    assert all(gamma.grad != 0 for gamma in fbsm.gamma.values())
    assert all(mask.weight.grad is not None for mask in fbsm.mask.values())
    with torch.no_grad():
        for gamma in fbsm.gamma.values():
            gamma.add_(0.1)
    sum(fbsm(outputs)[name].square().sum() for name in outputs).backward()
    assert all(mask.weight.grad.abs().sum() > 0 for mask in fbsm.mask.values())


def test_no_level_is_refused():
    with pytest.raises(ValueError, match="at least one level"):
        make(())


@torch.no_grad()
def test_masks_start_undecided_on_many_channels():
    shapes = {"p2": ShapeSpec(channels=256, stride=4)}
    fbsm = ForegroundBackgroundSeparationModule(shapes)
    masks = fbsm.mask_logits({"p2": torch.randn(1, 256, 32, 32)})["p2"].sigmoid()
    assert 0.2 < masks.quantile(0.01) < masks.quantile(0.99) < 0.8
    assert masks.std() > 0.01
