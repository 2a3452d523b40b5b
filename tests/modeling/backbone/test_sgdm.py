import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import prune

from efpn_d2.modeling import RazorDynamicConv, StaticGuidedDynamicModule

pytestmark = pytest.mark.fast


def block_in_use(channels: int = 16, **options: object) -> StaticGuidedDynamicModule:
    """A block whose weights are no longer those of the start, in evaluation mode."""
    torch.manual_seed(0)
    block = StaticGuidedDynamicModule(channels, **options).eval()
    torch.nn.init.normal_(block.proj.weight)
    for parameter in block.dynamic_conv.generator.channel[-1].parameters():
        torch.nn.init.normal_(parameter)
    return block


def test_a_new_block_is_bitwise_the_identity():
    x = 10 * torch.randn(2, 16, 9, 12)
    assert torch.equal(StaticGuidedDynamicModule(16)(x), x)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_at_the_start_it_is_bitwise_the_static_convolution(kernel_size):
    torch.manual_seed(0)
    block = StaticGuidedDynamicModule(16, kernel_size=kernel_size, razor_ratio=2)
    torch.nn.init.normal_(block.proj.weight)
    x = torch.randn(3, 16, 9, 12)
    static = block.dynamic_conv.static_kernels()[:, None]
    convolved = F.conv2d(x[:, :8], static, padding=kernel_size // 2, groups=8)
    expected = torch.cat([convolved, x[:, 8:]], dim=1)
    assert torch.equal(block.dynamic_conv(x), expected)
    logits = F.conv2d(expected, block.proj.weight, block.proj.bias)
    assert torch.allclose(block(x), x * (2 * torch.sigmoid(logits)), atol=1e-5)


@pytest.mark.parametrize("razor_ratio", [1, 4])
@pytest.mark.parametrize("images", [0, 1, 3])
def test_the_attention_is_that_of_the_convolved_map_which_is_not_made(razor_ratio, images):
    block = block_in_use(razor_ratio=razor_ratio)
    x = torch.randn(images, 16, 9, 12, requires_grad=True)
    logits = block.proj(block.dynamic_conv(x))
    gradients = []
    for attention in (block.attention(x), 2 * torch.sigmoid(logits)):
        block.zero_grad()
        attention.square().sum().backward()
        gradients.append([x.grad.clone(), *(p.grad.clone() for p in block.parameters())])
        x.grad = None
    assert torch.allclose(block.attention(x), 2 * torch.sigmoid(logits), atol=1e-5)
    assert all(torch.allclose(*pair, atol=1e-3) for pair in zip(*gradients, strict=True))


def test_hooks_and_pruned_weights_of_its_layers_count():
    x = torch.randn(1, 16, 6, 7)
    seen = []
    block = block_in_use()
    expected = block(x)
    block.dynamic_conv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert torch.allclose(block(x), expected, atol=1e-5)
    assert [tuple(maps.shape) for maps in seen] == [(1, 16, 6, 7)]
    pruned = block_in_use()
    prune.random_unstructured(pruned.proj, "weight", 0.5)
    with torch.no_grad():
        pruned.proj.weight_orig.zero_()
        pruned.proj.bias.zero_()
    assert torch.equal(pruned(x), x)


def test_guided_kernels_are_the_static_ones_times_one_plus_the_generated():
    block = block_in_use()
    x = torch.randn(2, 16, 9, 12)
    convolution = block.dynamic_conv
    static, change = convolution.static_kernels(), convolution.generator(x[:, :4])
    kernels = convolution.kernels(x)
    assert torch.allclose(kernels, static * (1 + change))
    assert (kernels.sign() == static.sign()).all()
    assert (kernels.abs() <= 2 * static.abs()).all()
    assert change.abs().max() > 0.1


def test_without_a_guide_the_kernels_are_the_generated_ones():
    convolution = RazorDynamicConv(16)
    x = torch.randn(2, 16, 9, 12)
    assert torch.equal(convolution.kernels(x), convolution.generator(x[:, :4]))
    block = StaticGuidedDynamicModule(16, static_guide=False)
    assert block.dynamic_conv.static_kernels is None
    assert torch.equal(block(x), x)


def test_each_image_has_kernels_of_its_own_and_does_not_see_the_others():
    block = block_in_use()
    x = torch.randn(2, 16, 9, 12)
    kernels = block.dynamic_conv.kernels(x)
    assert (kernels[0] - kernels[1]).abs().max() > 0.1
    alone = torch.cat([block(x[:1]), block(x[1:])])
    assert torch.allclose(block(x), alone, atol=1e-6)


def test_the_razor_leaves_the_other_channels_as_they_are_and_unread():
    torch.manual_seed(0)
    convolution = RazorDynamicConv(16, razor_ratio=4)
    x = torch.randn(1, 16, 8, 8)
    out = convolution(x)
    assert torch.equal(out[:, 4:], x[:, 4:])
    assert not torch.allclose(out[:, :4], x[:, :4], atol=0.1)
    other = torch.cat([x[:, :4], torch.randn(1, 12, 8, 8)], dim=1)
    assert torch.equal(convolution(other)[:, :4], out[:, :4])


def test_every_parameter_moves_within_a_few_steps():
    torch.manual_seed(0)
    block = StaticGuidedDynamicModule(16)
    before = {k: v.clone() for k, v in block.state_dict().items()}
    optimizer = torch.optim.SGD(block.parameters(), lr=1.0)
    x, target = torch.randn(2, 16, 8, 8), torch.randn(2, 16, 8, 8)
    for _ in range(4):  # the zero layers open the way to those before them one after the other
        optimizer.zero_grad()
        (block(x) - target).square().mean().backward()
        optimizer.step()
    assert [k for k, v in block.state_dict().items() if torch.equal(v, before[k])] == []


def test_an_empty_batch_gives_an_empty_result_and_gradients():
    block = block_in_use()
    x = torch.zeros(0, 16, 5, 6, requires_grad=True)
    out = block(x)
    assert out.shape == x.shape
    out.sum().backward()
    assert [k for k, p in block.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_start_exact_and_trains(dtype):
    x = torch.randn(2, 16, 9, 12)
    block = block_in_use()
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(StaticGuidedDynamicModule(16)(x.to(dtype)), x.to(dtype))
        out = block(x)
    assert torch.allclose(out.float(), block(x), atol=0.2)
    out.float().square().mean().backward()
    assert [k for k, p in block.named_parameters() if not p.grad.isfinite().all()] == []
    assert block.dynamic_conv.generator.spatial.weight.grad.any()


def test_compiled_as_one_graph_for_any_size():
    block = block_in_use()
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for size in ((2, 16, 9, 12), (3, 16, 10, 7)):
            x = torch.randn(size)
            assert torch.allclose(compiled(x), block(x), atol=1e-6)


def test_exported_for_any_batch():
    block = block_in_use()
    example = torch.randn(2, 16, 9, 12)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(block, (example,), dynamic_shapes=({0: batch},)).module()
    with torch.no_grad():
        for x in (example, torch.randn(5, 16, 9, 12)):
            assert torch.allclose(exported(x), block(x), atol=1e-6)


def test_scripted_and_traced():
    block = block_in_use()
    x = torch.randn(2, 16, 9, 12)
    with torch.no_grad():
        assert torch.allclose(torch.jit.script(block)(x), block(x), atol=1e-6)
        traced = torch.jit.trace(block, x)
        other = torch.randn(2, 16, 20, 7)
        assert torch.allclose(traced(other), block(other), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 4}, "MODEL.SGDM.KERNEL_SIZE is 4, .* use an odd number."),
        ({"razor_ratio": 3}, "MODEL.SGDM.RAZOR_RATIO is 3, which does not divide 16 channels"),
        ({"reduction": 0}, "MODEL.SGDM.REDUCTION is 0: use 1 or more."),
    ],
)
def test_mistakes_are_one_clear_sentence(options, message):
    for build in (StaticGuidedDynamicModule, RazorDynamicConv):
        with pytest.raises(ValueError, match=message):
            build(16, **options)


def test_a_block_without_static_kernels_to_share_is_refused():
    with pytest.raises(ValueError, match="MODEL.SGDM.SHARED_KERNELS is 0: use 1 or more."):
        StaticGuidedDynamicModule(16, shared_kernels=0)
