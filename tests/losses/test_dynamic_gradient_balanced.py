import copy
import math

import pytest
import torch
from detectron2.utils.events import EventStorage
from fvcore.nn import smooth_l1_loss
from torch.nn import functional as F

from efpn_d2.losses import DynamicGradientBalancedLoss
from efpn_d2.losses.dynamic_gradient_balanced import gradient_norms

pytestmark = pytest.mark.fast


def positive_bce(logits, rows):
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="sum")


def logit(*probabilities):
    return torch.tensor(probabilities).logit()


def balance(**options):
    return DynamicGradientBalancedLoss(**{"alpha": 1.0, "size_bins": [8], **options})


def test_two_bins_by_hand():
    # One object of 4 px with |p - y| = 0.8, two of 20 px with 0.4 and 0.2.
    loss, predictions = balance(momentum=0.75), logit(0.2, 0.6, 0.8).requires_grad_()
    extra = loss(positive_bce, predictions, torch.tensor([4.0, 20.0, 20.0]))
    # g = (0.8, 0.3), their mean 0.55, w = (0.6875, 1.8333), the mean over the samples 1.4514.
    assert loss.gradient_norms.tolist() == pytest.approx([0.8, 0.3])
    w_small, w_large = 0.6875 / 1.451389, 1.833333 / 1.451389
    plain = [-math.log(p) for p in (0.2, 0.6, 0.8)]
    weighted = w_small * plain[0] + w_large * (plain[1] + plain[2])
    assert sum(plain) + extra.item() == pytest.approx(weighted, rel=1e-5)
    extra.backward()
    gradients = [-0.8 * (w_small - 1), -0.4 * (w_large - 1), -0.2 * (w_large - 1)]
    assert predictions.grad.tolist() == pytest.approx(gradients, rel=1e-5)

    # Next, two small objects with 0.4 and no large one: 0.75 * 0.8 + 0.25 * 0.4, and w is 1.
    extra = loss(positive_bce, logit(0.6, 0.6), torch.tensor([4.0, 4.0]))
    assert loss.gradient_norms.tolist() == pytest.approx([0.7, 0.3])
    assert loss.updates.tolist() == [2, 1]
    assert extra.item() == 0


def test_with_alpha_1_each_size_gets_the_same_mean_gradient():
    loss, predictions = balance(max_weight=10.0, min_weight=0.1), logit(0.2, 0.6, 0.8)
    predictions.requires_grad_()
    extra = loss(positive_bce, predictions, torch.tensor([4.0, 20.0, 20.0]))
    (positive_bce(predictions, None) + extra).backward()
    assert -predictions.grad[0].item() == pytest.approx(-predictions.grad[1:].mean().item())


def test_weights_are_limited_before_they_are_brought_to_a_mean_of_1():
    loss = balance(min_weight=0.9, max_weight=1.1)
    predictions = logit(0.2, 0.6).requires_grad_()
    loss(positive_bce, predictions, torch.tensor([4.0, 20.0])).backward()
    assert predictions.grad.tolist() == pytest.approx([-0.8 * -0.1, -0.4 * 0.1], rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_alpha_0_adds_nothing(seed):
    """Bitwise: neither to the loss nor to the gradients, whatever the state."""
    torch.manual_seed(seed)
    loss = balance(alpha=0.0, size_bins=[8, 16, 32], min_weight=0.3, max_weight=3.0)
    for _ in range(3):
        plain = torch.randn(37, requires_grad=True)
        balanced = plain.detach().clone().requires_grad_()
        positive_bce(plain, None).backward()
        extra = loss(positive_bce, balanced, torch.rand(37) * 40)
        total = positive_bce(balanced, None) + extra
        total.backward()
        assert torch.equal(total, positive_bce(plain, None))
        assert torch.equal(balanced.grad, plain.grad)


def by_sample(batches, edges, alpha, momentum, low, high):
    """The weighted sum of the last batch, as one would write it first; scalars only."""
    state = {}
    for probabilities, sizes in batches:
        bins = [sum(size >= edge for edge in edges) for size in sizes]
        for k in set(bins):
            errors = [1 - p for p, b in zip(probabilities, bins, strict=True) if b == k]
            mean = sum(errors) / len(errors)
            state[k] = momentum * state[k] + (1 - momentum) * mean if k in state else mean
    mean = sum(state.values()) / len(state)
    weights = [min(max((mean / state[b]) ** alpha, low), high) for b in bins]
    mean_weight = sum(weights) / len(weights)
    losses = [-math.log(p) for p in probabilities]
    return sum(w / mean_weight * x for w, x in zip(weights, losses, strict=True))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("limits", [(0.5, 2.0), (0.01, 100.0)])
def test_equals_a_loop_over_samples(alpha, momentum, limits):
    torch.manual_seed(0)
    edges = [8, 16, 32]
    options = {"size_bins": edges, "min_weight": limits[0], "max_weight": limits[1]}
    loss, batches = balance(alpha=alpha, momentum=momentum, **options), []
    for count in (3, 1, 20, 7):
        probabilities, sizes = torch.rand(count) * 0.98 + 0.01, torch.rand(count) * 45
        batches.append((probabilities.tolist(), sizes.tolist()))
        extra = loss(positive_bce, probabilities.logit(), sizes)
        total = positive_bce(probabilities.logit(), None) + extra
        expected = by_sample(batches, edges, alpha, momentum, *limits)
        assert total.item() == pytest.approx(expected, rel=1e-4)


def test_gradient_norms_by_hand():
    classes = torch.tensor([0, 2])

    def softmax(scores, rows):
        return F.cross_entropy(scores, classes[rows], reduction="sum")

    scores = torch.tensor([[0.5, 0.25, 0.25], [0.7, 0.2, 0.1]]).log()
    assert gradient_norms(softmax, scores).tolist() == pytest.approx([1.0, 1.8])

    def smooth_l1(deltas, rows):
        return smooth_l1_loss(deltas, torch.zeros_like(deltas), 1.0, reduction="sum")

    deltas = torch.tensor([[0.25, -0.5, 0.0, 9.0], [0.0, 0.0, 0.0, 0.1]])
    assert gradient_norms(smooth_l1, deltas).tolist() == pytest.approx([1.75, 0.1])


def test_gradient_norms_are_computed_without_a_graph_too():
    with torch.no_grad():
        assert gradient_norms(positive_bce, logit(0.25)).tolist() == pytest.approx([0.75])


def test_bins_are_half_open():
    loss = balance(size_bins=[8, 16])
    loss(positive_bce, logit(0.9, 0.8, 0.7, 0.6), torch.tensor([7.99, 8.0, 15.99, 16.0]))
    assert loss.gradient_norms.tolist() == pytest.approx([0.1, 0.25, 0.4])


def test_the_first_batch_may_be_without_objects():
    loss = balance()
    predictions = torch.zeros(0, requires_grad=True)
    extra = loss(positive_bce, predictions, torch.zeros(0))
    extra.backward()
    assert extra == 0
    assert loss.updates.tolist() == [0, 0]
    loss(positive_bce, logit(0.2, 0.6), torch.tensor([4.0, 20.0]))
    # Not pulled toward a zero that was never measured.
    assert loss.gradient_norms.tolist() == pytest.approx([0.8, 0.4])


@pytest.mark.parametrize("size", [0.0, 4.0, 20.0, 1e6])
@pytest.mark.parametrize("probability", [1e-30, 0.5, 1.0])
def test_one_bin_alone_is_the_plain_loss(size, probability):
    loss = balance(size_bins=[8, 16, 32])
    for _ in range(3):
        predictions = logit(probability, probability).clamp(-1e4, 1e4).requires_grad_()
        extra = loss(positive_bce, predictions, torch.full((2,), size))
        extra.backward()
        assert extra.item() == 0
        assert not predictions.grad.any()
    assert loss.updates.sum() == 3


def test_gradients_of_exactly_0_keep_the_weights_finite():
    loss = balance()
    predictions = torch.tensor([100.0, 0.0], requires_grad=True)
    loss(positive_bce, predictions, torch.tensor([4.0, 20.0])).backward()
    assert loss.gradient_norms.tolist() == [0.0, 0.5]
    assert predictions.grad.isfinite().all()


def test_what_is_not_finite_is_not_remembered():
    loss = balance()
    loss(positive_bce, logit(0.2, 0.6), torch.tensor([4.0, 20.0]))
    loss(positive_bce, torch.tensor([float("nan"), 0.0]), torch.tensor([4.0, 20.0]))
    assert loss.gradient_norms.tolist() == pytest.approx([0.8, 0.9 * 0.4 + 0.1 * 0.5])


def test_shares_are_logged_before_and_after_weighting():
    loss = balance(name="rpn_cls", min_weight=0.1, max_weight=10.0)
    with EventStorage() as storage:
        loss(positive_bce, logit(0.2, 0.6, 0.8), torch.tensor([4.0, 20.0, 20.0]))
        logged = {k: v for k, (v, _) in storage.latest().items()}
        loss(positive_bce, torch.zeros(0), torch.zeros(0))
        assert {k: v for k, (v, _) in storage.latest().items()} == logged
    place = "gradient_balance/rpn_cls/"
    assert logged[place + "share_before/0-8"] == pytest.approx(0.8 / 1.4)
    assert logged[place + "share_before/8-inf"] == pytest.approx(0.6 / 1.4)
    # Equal means: one object of three gets a third.
    assert logged[place + "share_after/0-8"] == pytest.approx(1 / 3)
    assert logged[place + "share_after/8-inf"] == pytest.approx(2 / 3)
    assert logged[place + "weight/0-8"] == pytest.approx(0.6875 / 1.451389)
    # Detectron2 prints all that has "loss" in its name.
    assert not any("loss" in name for name in logged)


def test_the_state_is_in_the_state_dict():
    first = balance()
    batches = [(logit(0.2, 0.6), torch.tensor([4.0, 20.0])), (logit(0.9), torch.tensor([3.0]))]
    first(positive_bce, *batches[0])
    state = copy.deepcopy(first.state_dict())
    assert state.keys() == {"edges", "gradient_norms", "updates"}
    second = balance()
    second.load_state_dict(state)
    for loss in (first, second):
        loss(positive_bce, *batches[1])
    assert torch.equal(first.gradient_norms, second.gradient_norms)
    assert second.updates.tolist() == [2, 1]


def test_a_state_dict_without_it_leaves_the_state():
    loss = torch.nn.Sequential(balance())
    loss[0](positive_bce, logit(0.2), torch.tensor([4.0]))
    result = loss.load_state_dict({})
    assert result.missing_keys == result.unexpected_keys == []
    assert loss[0].updates.tolist() == [1, 0]
    with pytest.raises(RuntimeError, match="other"):
        loss.load_state_dict({"0.other": torch.zeros(1)})


def test_a_state_of_other_bins_is_not_loaded(caplog):
    first, second = balance(size_bins=[8]), balance(size_bins=[64])
    first(positive_bce, logit(0.2, 0.6), torch.tensor([4.0, 20.0]))
    second.load_state_dict(first.state_dict())
    assert second.updates.tolist() == [0, 0]
    assert second.edges.tolist() == [64.0]
    assert "other size bins, with edges at [8.0] px" in caplog.text


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_loss_of_validation_is_weighed_but_changes_nothing(mode):
    loss, trained = balance(), balance()
    batches = [(logit(0.2, 0.6), torch.tensor([4.0, 20.0])), (logit(0.9), torch.tensor([20.0]))]
    for each in (loss, trained):
        each(positive_bce, *batches[0])
    before = copy.deepcopy(loss.state_dict())
    with mode(), EventStorage() as storage:
        found = loss(positive_bce, *batches[0])
        loss(positive_bce, *batches[1])
        assert not storage.latest()
    assert all(torch.equal(v, before[k]) for k, v in loss.state_dict().items())
    # The batch itself is where the state stands, so training on it weighs it alike.
    assert found.item() == pytest.approx(trained(positive_bce, *batches[0]).item())
    assert found.item() != 0


def test_half_precision_is_weighed_in_fp32():
    predictions = logit(0.2, 0.6, 0.8).bfloat16().requires_grad_()
    loss = balance()
    extra = loss(positive_bce, predictions, torch.tensor([4.0, 20.0, 20.0]))
    assert extra.dtype == loss.gradient_norms.dtype == torch.float32
    assert loss.gradient_norms.tolist() == pytest.approx([0.8, 0.3], abs=2e-3)
    extra.backward()
    assert predictions.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.5}, "DCLOSS_ALPHA is -0.5: use 0.0"),
        ({"alpha": float("nan")}, "DCLOSS_ALPHA is nan"),
        ({"momentum": 1.0}, "DCLOSS_MOMENTUM is 1.0: use a number from 0.0"),
        ({"size_bins": [16, 8]}, r"DCLOSS_SIZE_BINS is \[16, 8\]: .*edges"),
        ({"size_bins": [0, 8]}, r"DCLOSS_SIZE_BINS is \[0, 8\]: .*edges"),
        ({"min_weight": 1.5}, "DCLOSS_MIN_WEIGHT 1.5 and DCLOSS_MAX_WEIGHT 2.0 must be"),
        ({"max_weight": 0.9}, "DCLOSS_MIN_WEIGHT 0.5 and DCLOSS_MAX_WEIGHT 0.9 must be"),
        ({"min_weight": 0.0}, "DCLOSS_MIN_WEIGHT 0.0"),
    ],
)
def test_values_out_of_range_are_one_clear_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        balance(**options)
