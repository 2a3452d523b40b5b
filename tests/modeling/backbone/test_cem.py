import pytest
import torch
from detectron2.layers import ShapeSpec
from torch.nn import functional as F

from efpn_d2.modeling.backbone.cem import ContextEnhancementModule

pytestmark = pytest.mark.fast

C = 8
STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
SHAPES = {name: ShapeSpec(channels=C, stride=stride) for name, stride in STRIDES.items()}


def pick(*names):
    return {name: SHAPES[name] for name in names}


def make(high=("p5", "p6"), low=("p2", "p3", "p4")):
    torch.manual_seed(0)
    return ContextEnhancementModule(
        pick(*high), pick(*low), compressed_channels=6, local_channels=3
    )


def pyramid(height=128, width=192, n=2):
    torch.manual_seed(1)
    return {
        name: torch.randn(n, C, -(-height // stride), -(-width // stride))
        for name, stride in STRIDES.items()
    }


def slow_context(cem, outputs, target):
    """E_l by one convolution on the concatenation, and by hand-placed cells."""
    height, width = outputs[target].shape[-2:]
    local = torch.zeros(len(outputs[target]), 3, height, width)
    pooled = 0
    for name in cem.high:
        factor = STRIDES[name] // STRIDES[target]
        conv = cem.spread[name][target][0]
        spread = conv(F.relu(cem.compress[name](outputs[name])))
        for y in range(height):
            for x in range(width):
                for c in range(3):
                    channel = c * factor**2 + (y % factor) * factor + x % factor
                    local[:, c, y, x] += spread[:, channel, y // factor, x // factor]
        average = F.adaptive_avg_pool2d(outputs[name], 1)
        pooled = pooled + F.relu(cem.pool[name](average))
    both = torch.cat([local, pooled.expand(-1, -1, height, width)], dim=1)
    weight = torch.cat([cem.fuse_local[target].weight, cem.fuse_global[target].weight], dim=1)
    return F.conv2d(both, weight, cem.fuse_local[target].bias)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (72, 104)])  # the second with odd levels
def test_context_is_one_convolution_on_the_concatenation(size):
    cem, outputs = make(), pyramid(*size)
    enhanced = cem(outputs)
    for target in cem.low:
        expected = outputs[target] + slow_context(cem, outputs, target)
        torch.testing.assert_close(enhanced[target], expected, rtol=1e-4, atol=1e-5)
    for name in cem.high:
        assert enhanced[name] is outputs[name]


def test_a_cell_of_a_high_level_reaches_the_cells_it_covers_and_one_more_around():
    cem, outputs = make(high=("p5",), low=("p2",)), pyramid()
    outputs = {name: x.requires_grad_() for name, x in outputs.items()}
    # Without the global branch, which reaches everything.
    torch.nn.init.zeros_(cem.fuse_global["p2"].weight)
    y, x = 9, 21  # in cell (1, 2) of P5
    (cem(outputs)["p2"] - outputs["p2"].detach())[:, :, y, x].sum().backward()
    read = outputs["p5"].grad.abs().sum(dim=(0, 1)) > 0
    rows, columns = read.nonzero().T
    assert set(rows.tolist()) <= {0, 1, 2}
    assert set(columns.tolist()) <= {1, 2, 3}
    assert read[1, 2]


def test_high_levels_get_gradients_from_losses_on_low_levels_alone():
    cem, outputs = make(), pyramid()
    outputs = {name: x.requires_grad_() for name, x in outputs.items()}
    cem(outputs)["p3"].square().mean().backward()
    for name in ("p5", "p6"):
        assert outputs[name].grad.abs().sum() > 0


@torch.no_grad()
def test_a_trained_pyramid_keeps_its_maps_nearly():
    torch.manual_seed(0)
    shapes = {name: ShapeSpec(channels=64, stride=s) for name, s in STRIDES.items()}
    low = {name: shapes[name] for name in ("p2", "p3", "p4")}
    cem = ContextEnhancementModule({name: shapes[name] for name in ("p5", "p6")}, low)
    outputs = {name: torch.randn(1, 64, 256 // s, 256 // s) for name, s in STRIDES.items()}
    enhanced = cem(outputs)
    for name in low:
        assert 0 < (enhanced[name] - outputs[name]).std() < 0.3 * outputs[name].std()


def test_every_parameter_is_trained():
    cem = make()
    sum(x.square().sum() for x in cem(pyramid()).values()).backward()
    for name, parameter in cem.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("high", "low", "said"),
    [((), ("p2",), "at least one"), (("p5",), (), "at least one"), (("p4",), ("p4",), "stride 16")],
)
def test_levels_that_do_not_fit_are_refused(high, low, said):
    with pytest.raises(ValueError, match=said):
        make(high, low)


@pytest.mark.parametrize("name", ["compressed_channels", "local_channels"])
def test_branches_without_channels_are_refused(name):
    with pytest.raises(ValueError, match=f"MODEL.EFPN_BS.CEM_{name.upper()} is 0: use 1 or more."):
        ContextEnhancementModule(pick("p5"), pick("p2"), **{name: 0})
