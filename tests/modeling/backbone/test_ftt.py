import pytest
import torch
from torch import nn
from torch.nn import functional as F

from efpn_d2.layers import ResidualBlock
from efpn_d2.modeling import ESPCN, FeatureTextureTransfer, NearestUpsample

pytestmark = pytest.mark.fast


def fill(module: nn.Module, weight: float) -> None:
    """Every convolution becomes: weight at the centre of the kernel, elsewhere and in bias 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
            layer.weight.data[:, :, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = weight
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def test_eq_3_by_hand():
    ftt = FeatureTextureTransfer(1, content_blocks=1, texture_blocks=1)
    fill(ftt, 1.0)
    p3 = torch.tensor([[[[1.0]]]])
    p2 = torch.tensor([[[[1.0, -5.0], [0.0, 2.0]]]])
    # E_c: x + conv(relu(conv(x))) = 2; sub-pixel: all four filters 1 -> up = 2 everywhere.
    # E_t: fold = p2 + up = 3, -3, 2, 4; block: t + relu(t) = 6, -3, 4, 8. P'3 = E_t + up.
    assert ftt(p3, p2).flatten().tolist() == [8.0, -1.0, 6.0, 10.0]


def test_concatenation_is_p2_then_content():
    ftt = FeatureTextureTransfer(2, content_blocks=0, texture_blocks=0)
    fill(ftt, 0.0)
    fold = ftt.texture_extractor[0]
    fold.weight.data[0, 0, 1, 1] = 1.0  # output channel 0 <- first channel of p2
    p2 = torch.randn(1, 2, 4, 4)
    out = ftt(torch.randn(1, 2, 2, 2), p2)
    assert torch.equal(out[:, 0], p2[:, 0])
    assert torch.equal(out[:, 1], torch.zeros(1, 4, 4))


def conv(x: torch.Tensor, weights: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    weight = weights[f"{name}.weight"]
    return F.conv2d(x, weight, weights[f"{name}.bias"], padding=weight.shape[-1] // 2)


def test_reference_preset_is_the_arithmetic_of_the_authors_code():
    channels = 4
    ftt = FeatureTextureTransfer(channels, preset="reference")
    w = {k: nn.init.normal_(torch.empty_like(v), std=0.3) for k, v in ftt.state_dict().items()}
    ftt.load_state_dict(w)
    p3, p2 = torch.randn(2, channels, 5, 6), torch.randn(2, channels, 10, 12)

    def block(x, name):
        return F.relu(x + conv(F.relu(conv(x, w, f"{name}.conv1")), w, f"{name}.conv2"))

    def leaky(x):
        return torch.where(x > 0, x, 0.1 * x)

    head = leaky(conv(p3, w, "content_extractor.0"))
    content = head + block(head, "content_extractor.2.0")
    up = leaky(F.pixel_shuffle(conv(content, w, "sub_pixel.0.conv"), 2))
    texture = leaky(conv(torch.cat([p2, up], 1), w, "texture_extractor.0"))
    texture = block(block(texture, "texture_extractor.2"), "texture_extractor.3")
    tail = conv(leaky(conv(texture + up, w, "tail.0")), w, "tail.2")
    expected = tail + p3.repeat_interleave(2, 2).repeat_interleave(2, 3)

    assert torch.allclose(ftt(p3, p2), expected, atol=1e-5)


def test_reference_preset_has_the_widths_of_the_authors_code():
    shapes = {
        k: tuple(v.shape)
        for k, v in FeatureTextureTransfer(256, preset="reference").state_dict().items()
        if k.endswith("weight")
    }
    assert shapes["content_extractor.0.weight"] == (512, 256, 3, 3)
    assert shapes["sub_pixel.0.conv.weight"] == (2048, 512, 3, 3)
    assert shapes["texture_extractor.0.weight"] == (512, 768, 3, 3)
    assert shapes["tail.0.weight"] == (512, 512, 3, 3)
    assert shapes["tail.2.weight"] == (256, 512, 3, 3)
    assert len(shapes) == 5 + 6  # and the two convolutions of each of the three blocks


@pytest.mark.parametrize(
    ("preset", "content", "texture"), [("paper", 2, 2), ("reference", 1, 2), ("slim", 2, 2)]
)
def test_presets_have_the_blocks_they_say(preset, content, texture):
    ftt = FeatureTextureTransfer(8, preset=preset)

    def count(module):
        return sum(isinstance(m, ResidualBlock) for m in module.modules())

    assert count(ftt.content_extractor) == content
    assert count(ftt.texture_extractor) == texture
    assert ftt.texture_extractor[0].kernel_size == (3, 3)


@pytest.mark.parametrize(
    "module",
    [
        *(FeatureTextureTransfer(8, preset=p) for p in ("paper", "reference")),
        FeatureTextureTransfer(32, content_blocks=0, texture_blocks=0, norm="GN"),
        FeatureTextureTransfer(8, preset="reference", width=12, content_blocks=0),
        ESPCN(8),
    ],
)
def test_shape_and_gradient_of_every_part(module):
    torch.manual_seed(0)
    channels = 32 if module.state_dict().get("texture_extractor.0.norm.weight") is not None else 8
    p3, p2 = torch.randn(2, channels, 3, 5), torch.randn(2, channels, 6, 10)
    p3_prime = module(p3, p2)
    assert p3_prime.shape == p2.shape
    p3_prime.square().mean().backward()
    silent = [k for k, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_p3_prime_starts_near_the_upsampled_p3(preset):
    torch.manual_seed(0)
    p3, p2 = torch.randn(2, 64, 8, 8), torch.randn(2, 64, 16, 16)
    nearest = p3.repeat_interleave(2, 2).repeat_interleave(2, 3)
    with torch.no_grad():
        change = FeatureTextureTransfer(64, preset=preset)(p3, p2) - nearest
    assert 0 < change.std() < 0.5 * nearest.std()


def test_nearest_and_espcn_read_p3_only():
    p3 = torch.randn(1, 4, 2, 3)
    espcn = ESPCN(4)
    for module in (espcn, NearestUpsample(4)):
        first, second = (module(p3, torch.randn(1, 4, 4, 6)) for _ in range(2))
        assert torch.equal(first, second)
    assert NearestUpsample(4)(p3, p3)[0, 1, 3, 5] == p3[0, 1, 1, 2]
    assert sum(isinstance(m, nn.Conv2d) for m in espcn.modules()) == 3


def test_unknown_preset_is_one_clear_sentence():
    with pytest.raises(ValueError, match="MODEL.EFPN.PRESET is 'papr'.*paper, reference, slim"):
        FeatureTextureTransfer(8, preset="papr")


def test_a_width_that_cannot_be_is_one_clear_sentence():
    with pytest.raises(ValueError, match="MODEL.EFPN.WIDTH is 16.*8 channels"):
        FeatureTextureTransfer(8, width=16)
