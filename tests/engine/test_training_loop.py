"""The optimizer step on models whose gradients are arithmetic."""

import contextlib
import functools
import logging

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import SimpleTrainer
from detectron2.modeling.poolers import ROIPooler
from detectron2.solver import build_optimizer
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from torch import nn

from efpn_d2 import add_efpn_config
from efpn_d2.engine.training_loop import (
    AMPMicroBatchTrainer,
    MicroBatchTrainer,
    TrainingOptions,
    build_training_loop,
    training_options,
)

pytestmark = pytest.mark.fast


class Scale(nn.Module):
    """``weight * mean(batch)``, so that the gradient is the batch's mean; no matrix product."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))

    def forward(self, batch):
        return {"loss_scale": (self.weight * torch.tensor(batch)).mean()}


class Regression(nn.Module):
    """Mean squared error of a small network, per image; and a loss of another kind."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))
        self.dtypes = set()

    def forward(self, batch):
        out = self.net(torch.stack(batch))
        self.dtypes.add(out.dtype)
        return {"loss_square": (out - 1).float().square().mean(), "loss_abs": out.abs().mean()}


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 1.0, **options})


def steps(loop, count=1):
    """Run iterations as the trainer around a loop does; returns what was logged last."""
    with EventStorage() as storage:
        for loop.iter in range(count):
            storage.iter = loop.iter
            loop.run_step()
    return {name: value for name, (value, _) in storage.latest().items()}


def image_batches(count=3, size=4):
    generator = torch.Generator().manual_seed(1)
    return [list(torch.randn(size, 5, generator=generator)) for _ in range(count)]


def trained(loop_class, batches, **options):
    model = Regression()
    optimizer = sgd(model, lr=0.1, momentum=0.9, weight_decay=0.01)
    steps(loop_class(model, batches, optimizer, **options), len(batches))
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_without_parts_it_is_the_core_loop_bit_for_bit():
    batches = image_batches()
    assert torch.equal(trained(MicroBatchTrainer, batches), trained(SimpleTrainer, batches))


@pytest.mark.parametrize("parts", [2, 4])
def test_steps_in_parts_are_those_of_the_whole_batches(parts):
    batches = image_batches()
    in_parts = trained(MicroBatchTrainer, batches, micro_batches=parts)
    assert torch.allclose(in_parts, trained(SimpleTrainer, batches), rtol=1e-5, atol=1e-7)
    # So that the comparison can fail: the same parts, each a step of its own.
    alone = [part for batch in batches for part in (batch[:2], batch[2:])]
    assert not torch.allclose(in_parts, trained(SimpleTrainer, alone), rtol=1e-2)


def test_one_step_in_parts_by_hand():
    model = Scale()
    loop = MicroBatchTrainer(model, [[1.0, 2.0, 3.0, 6.0, 7.0, 11.0]], sgd(model), micro_batches=3)
    calls = []
    loop.after_backward = lambda: calls.append(model.weight.grad.item())
    logged = steps(loop)
    # Means of the parts: 1.5, 4.5 and 9; mean of those: 5.
    assert calls == [5.0]
    assert model.weight.item() == 2.0 - 5.0
    assert logged["total_loss"] == 2.0 * 5.0


class MeanOverBoxes(nn.Module):
    """Like a loss that is normalised by the number of boxes of its batch."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0]))

    def forward(self, batch):
        boxes = torch.tensor([x for image in batch for x in image])
        return {"loss_boxes": (self.weight * boxes).mean(), "loss_none": self.weight.sum() * 0}


def test_a_loss_over_a_varying_number_of_boxes_is_the_mean_over_parts():
    model = MeanOverBoxes()
    batch = [[4.0], [0.0, 1.0, 2.0, 3.0]]
    steps(MicroBatchTrainer(model, [batch], sgd(model), micro_batches=2))
    # (4 + 1.5) / 2; over all boxes of the batch it would be 2.
    assert model.weight.item() == -2.75


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_mixed_precision_computes_in_it_and_keeps_weights_and_losses_in_fp32(precision):
    model = Regression()
    before = [p.detach().clone() for p in model.parameters()]
    loop = AMPMicroBatchTrainer(
        model, image_batches(), sgd(model, lr=0.1), precision=precision, micro_batches=2
    )
    logged = steps(loop, 3)
    assert model.dtypes == {precision}
    assert all(
        p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in loop_params(loop)
    )
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert loop.grad_scaler.is_enabled() == (precision == torch.float16)
    expected = steps(MicroBatchTrainer(Regression(), image_batches(), sgd(Regression())), 1)
    assert 0 < logged["total_loss"] < expected["total_loss"]


def loop_params(loop):
    return list(loop.model.parameters())


def clipped(model, clip_type, value, fused):
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip_type
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = value
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = 1.0, 0.0
    if fused:
        return maybe_add_gradient_clipping(cfg, sgd(model, fused=True))
    return build_optimizer(cfg, model)


@contextlib.contextmanager
def loss_scale(monkeypatch, scale):
    scaler = functools.partial(torch.amp.GradScaler, init_scale=scale)
    with monkeypatch.context() as patch:
        patch.setattr(torch.amp, "GradScaler", scaler)
        yield


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clip_type", ["norm", "value"])
@pytest.mark.parametrize(("mean", "update"), [(5.0, 3.0), (0.5, 0.5)])
def test_clipping_sees_gradients_without_the_loss_scale(
    monkeypatch, fused, clip_type, mean, update
):
    """Above and below the limit of 3, in two parts, with scales from 1 to 2^24."""
    for scale in (1.0, 2.0**24):
        model = Scale()
        with loss_scale(monkeypatch, scale):
            loop = AMPMicroBatchTrainer(
                model,
                [[mean - 0.25, mean + 0.25]],
                clipped(model, clip_type, 3.0, fused),
                micro_batches=2,
            )
        steps(loop)
        assert loop.grad_scaler.get_scale() == scale
        assert model.weight.item() == pytest.approx(2.0 - update, rel=1e-6)


def test_clipping_acts_on_the_mean_of_the_parts():
    model = Scale()
    optimizer = clipped(model, "value", 3.0, fused=False)
    # Clipped one by one, the parts would give (3 - 1) / 2.
    steps(MicroBatchTrainer(model, [[5.0, -1.0]], optimizer, micro_batches=2))
    assert model.weight.item() == 2.0 - 2.0


def test_a_step_whose_gradients_overflow_is_left_out(monkeypatch):
    model = Scale()
    with loss_scale(monkeypatch, 2.0**127):
        loop = AMPMicroBatchTrainer(
            model, [[8.0, 0.0], [0.5, 0.25]], sgd(model, momentum=0.9), micro_batches=2
        )
    steps(loop)
    assert model.weight.item() == 2.0
    assert loop.grad_scaler.get_scale() == 2.0**126
    steps(loop)
    assert model.weight.item() == 2.0 - 0.375


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_in_any_part_ends_the_training(amp, bad):
    model = Scale()
    loop = (AMPMicroBatchTrainer if amp else MicroBatchTrainer)(
        model, [[1.0, bad, 1.0, 1.0]], sgd(model), micro_batches=4
    )
    with pytest.raises(FloatingPointError, match="infinite or NaN at iteration=0"):
        steps(loop)
    assert model.weight.item() == 2.0


def test_the_loss_scale_is_resumed(monkeypatch):
    """Scale and the steps until it grows, bit for bit."""
    batches = image_batches(6)
    scaler = functools.partial(torch.amp.GradScaler, init_scale=64.0, growth_interval=4)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)

    def make(batches):
        model = Regression()
        optimizer = sgd(model, lr=0.1, momentum=0.9)
        return AMPMicroBatchTrainer(model, batches, optimizer, micro_batches=2)

    whole, first, second = make(batches), make(batches[:3]), make(batches[3:])
    steps(whole, 6)
    steps(first, 3)
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    steps(second, 3)
    assert whole.grad_scaler.get_scale() == 128.0
    assert second.grad_scaler.state_dict() == whole.grad_scaler.state_dict()
    for a, b in zip(loop_params(whole), loop_params(second), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("before", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("after", [None, torch.bfloat16, torch.float16])
def test_another_precision_may_resume_a_training(before, after, caplog):
    def make(precision):
        model = Scale()
        return build_training_loop(TrainingOptions(1, precision), model, [[1.0]], sgd(model))

    old, new = make(before), make(after)
    steps(old)
    new.load_state_dict(old.state_dict())
    steps(new)
    starts_anew = after == torch.float16 and before != after
    assert ("the loss scale is initialized again" in caplog.text) == starts_anew


def test_boxes_are_pooled_where_they_are_from_maps_in_bf16():
    """A ramp of the map tells where a box was read; bf16 has steps of 8 at x = 1301."""
    ramp = torch.arange(0, 1600, 4).float().expand(1, 1, 8, 400).bfloat16()
    pooler = ROIPooler((1, 1), [0.25], 2, "ROIAlignV2")
    boxes = [Boxes(torch.tensor([[1301.0, 4, 1305, 8]]))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = pooler([ramp], boxes)
        model = nn.Sequential(pooler, nn.Linear(1, 1))
        AMPMicroBatchTrainer(model, [], sgd(model), precision=torch.bfloat16)
        pooled = pooler([ramp], boxes)
    exact = ROIPooler((1, 1), [0.25], 2, "ROIAlignV2")([ramp.float()], boxes)
    assert pooled.item() == exact.item()
    assert moved.item() != exact.item()


def config(*opts):
    cfg = get_cfg()
    add_efpn_config(cfg)
    cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", 4, *opts])
    return cfg


def test_options_of_the_config():
    assert training_options(config()) == (1, None)
    amp = ("SOLVER.AMP.ENABLED", True, "TRAINING.ACCUMULATE_GRADIENTS", 4)
    assert training_options(config(*amp)) == (4, torch.float16)
    bfloat16 = ("TRAINING.AMP_PRECISION", "bfloat16")
    assert training_options(config(*amp, *bfloat16)) == (4, torch.bfloat16)
    assert training_options(config(*bfloat16)) == (1, None)


@pytest.mark.parametrize(
    ("device", "precision", "warned"),
    [("cpu", "float16", True), ("cpu", "bfloat16", False), ("cuda", "float16", False)],
)
def test_float16_on_a_cpu_is_warned_of(device, precision, warned, caplog):
    options = {"SOLVER.AMP.ENABLED": True, "TRAINING.AMP_PRECISION": precision}
    with caplog.at_level(logging.WARNING):
        training_options(config("MODEL.DEVICE", device, *sum(options.items(), ())))
        training_options(config("MODEL.DEVICE", device, "TRAINING.AMP_PRECISION", precision))
    messages = [record.getMessage() for record in caplog.records]
    assert [message.endswith("SOLVER.AMP.ENABLED False.") for message in messages] == (
        [True] if warned else []
    )


def test_a_config_without_the_node_is_one_with_its_defaults():
    cfg = get_cfg()
    assert training_options(cfg) == (1, None)
    cfg.SOLVER.AMP.ENABLED = True
    cfg.freeze()
    assert training_options(cfg) == (1, torch.float16)
    assert "TRAINING" not in cfg


def refusal(*opts, error=ValueError):
    with pytest.raises(error) as caught:
        training_options(config(*opts))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("parts", [0, -2])
def test_less_than_one_part_is_refused(parts):
    message = refusal("TRAINING.ACCUMULATE_GRADIENTS", parts)
    assert message.startswith(f"TRAINING.ACCUMULATE_GRADIENTS is {parts}: use 1, or")


def test_an_unknown_precision_is_refused():
    message = refusal("TRAINING.AMP_PRECISION", "fp8")
    assert "'fp8', which does not exist: use one of float16, bfloat16." in message


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    assert "IMS_PER_BATCH 4 cannot be divided among 1 process(es) with 3 parts each" in refusal(
        "TRAINING.ACCUMULATE_GRADIENTS", 3
    )
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 4)
    message = refusal("TRAINING.ACCUMULATE_GRADIENTS", 2)
    assert message.endswith("make it a multiple of 8.")
    model = Scale()
    loop = MicroBatchTrainer(model, [[1.0, 2.0, 3.0]], sgd(model), micro_batches=2)
    with pytest.raises(ValueError, match="a batch of 3, .*GRADIENTS 2: .* multiple of 2"):
        loop.run_step()


def test_a_torch_without_a_loss_scale_for_every_device_is_refused(monkeypatch):
    monkeypatch.delattr(torch.amp, "GradScaler")
    assert training_options(config()) == (1, None)
    message = refusal("SOLVER.AMP.ENABLED", True, error=RuntimeError)
    assert "SOLVER.AMP.ENABLED needs torch 2.3 or later" in message
