"""Modules and hooks that someone has put into a network change no result and miss no call."""

import threading

import pytest
import torch
from detectron2.modeling import build_backbone
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import nn
from torch.nn.utils import parametrizations, prune
from torchvision.ops import DeformConv2d

from efpn_d2.modeling import EFPN
from efpn_d2.modeling.lazy import LazyP2Prime
from efpn_d2.modeling.lazy.profile import profile_extension
from tests.modeling.helpers import tiny_config

pytestmark = pytest.mark.fast

STAGE2, EXTENSION = "bottom_up.res2.0.conv1", "extension.upsampler.sub_pixel.conv"
SMALL = [Boxes(torch.tensor([[8.0, 8.0, 16.0, 16.0]]))]


def build(lazy, *opts):
    cfg = tiny_config()
    cfg.MODEL.EFPN.LAZY = lazy
    cfg.MODEL.EFPN.LAZY_TILE_SIDES = [16]
    cfg.merge_from_list(list(opts))
    torch.manual_seed(0)
    return build_backbone(cfg).eval()


def make_images(height=128, width=128):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(3))


def dense_of(p2_prime):
    return p2_prime.dense() if isinstance(p2_prime, LazyP2Prime) else p2_prime


def pool(p2_prime):
    pooler = ROIPooler(7, (0.5,), 0, "ROIAlignV2")
    if isinstance(p2_prime, LazyP2Prime):
        return p2_prime.pool(pooler, SMALL)
    return pooler([p2_prime], SMALL)


CHANGES = {
    "pruned": lambda conv: prune.l1_unstructured(conv, "weight", 0.3),
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "other forward": lambda conv: setattr(conv, "forward", lambda x: type(conv).forward(conv, x)),
}


@pytest.mark.parametrize("where", [STAGE2, EXTENSION])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("lazy", [False, True])
def test_a_weight_that_is_computed(change, where, lazy, caplog):
    backbone = build(lazy)
    CHANGES[change](backbone.get_submodule(where))
    images = make_images()
    with torch.enable_grad():
        expected = dense_of(backbone(images)["p2_prime"])
    with torch.no_grad():
        found = backbone(images)["p2_prime"]
        torch.testing.assert_close(pool(found), pool(expected), rtol=0, atol=1e-4)
    # With a parametrization the module is as any other; hooks and a forward of its own are called.
    tiles = lazy and "norm" in change
    assert isinstance(found, LazyP2Prime) == tiles
    assert ("a hook is registered" in caplog.text) == (lazy and not tiles)
    if tiles:
        assert 0 < found.active_share < 1


@torch.no_grad()
@pytest.mark.parametrize("lazy", [False, True])
def test_every_hook_is_called_with_its_own_module(lazy):
    class Recorder:
        """As tools are that keep what passes: not to be copied."""

        def __init__(self, module):
            self.module, self.lock, self.sizes = module, threading.Lock(), []
            module.register_forward_hook(self.record)

        def record(self, module, inputs, output):
            assert module is self.module
            with self.lock:
                self.sizes.append(output.shape[-1])

    backbone = build(lazy)
    recorders = [Recorder(backbone.get_submodule(name)) for name in (STAGE2, EXTENSION)]
    backbone(make_images())
    assert [x.sizes for x in recorders] == [[32, 64], [16]]


@torch.no_grad()
@pytest.mark.parametrize("fuse", ["sum", "avg"])
@pytest.mark.parametrize(
    ("name", "opts"),
    [
        ("extension.lateral", ()),
        ("extension.upsampler.tail", ("MODEL.EFPN.PRESET", "reference")),
        ("fpn_lateral3", ()),
    ],
)
def test_an_output_that_was_kept_is_not_changed(name, opts, fuse):
    backbone, kept = build(False, "MODEL.FPN.FUSE_TYPE", fuse, *opts), []
    module = backbone.get_submodule(name)
    module.register_forward_hook(lambda _, inputs, output: kept.append((output, output.clone())))
    backbone(make_images())
    assert len(kept) == 1
    assert torch.equal(*kept[0])


class Refuses(nn.Module):
    """Knows single precision only, and not the probe's."""

    def forward(self, x):
        if x.dtype == torch.double:
            raise TypeError("no such kernel")
        return x


@torch.no_grad()
def test_what_cannot_be_probed_is_dense(caplog):
    backbone, images = build(True), make_images()
    expected = pool(dense_of(backbone(images)["p2_prime"]))
    backbone.extension.output = nn.Sequential(backbone.extension.output, Refuses())
    found = backbone(images)["p2_prime"]
    torch.testing.assert_close(pool(found), expected, rtol=0, atol=1e-4)
    assert found.active_share == 1.0
    assert "(TypeError: no such kernel)" in caplog.text


class Holder(nn.Module):
    """Of a deformable convolution."""

    def __init__(self):
        super().__init__()
        self.conv = DeformConv2d(64, 64, 3, padding=1)

    def forward(self, x):
        raise AssertionError("NaNs would be offsets")


class DCNv9(nn.Module):
    """Someone's own."""

    def forward(self, x):
        raise AssertionError("NaNs would be offsets")


@pytest.mark.parametrize("module", [Holder, DCNv9])
def test_a_deformable_convolution_is_not_probed(module):
    backbone = build(True)
    assert profile_extension(backbone.bottom_up.stages[0], backbone.extension) is not None
    stage2 = nn.Sequential(backbone.bottom_up.stages[0], module())
    assert profile_extension(stage2, backbone.extension) is None


@torch.no_grad()
def test_a_module_that_was_replaced_is_probed_again():
    backbone, images = build(True), make_images()
    pool(backbone(images)["p2_prime"])
    conv = backbone.extension.output
    conv.dilation, conv.padding = (4, 4), (4, 4)
    found = backbone(images)["p2_prime"]
    pooled = pool(found)
    assert found.active_share < 1
    expected = pool(EFPN.forward(backbone, images)["p2_prime"])
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["bottom_up", "bottom_up.res2.0", "extension"])
def test_who_waits_for_a_call_gets_it(name, caplog):
    backbone, seen = build(True), []
    backbone.get_submodule(name).register_forward_hook(lambda *_: seen.append(name))
    assert isinstance(backbone(make_images(64, 64))["p2_prime"], torch.Tensor)
    assert seen == [name] * (2 if "res2" in name else 1)  # of C2 and of C'2
    assert "a hook is registered" in caplog.text


class Wrapped(nn.Module):
    """Another bottom-up network, which knows of no tiles."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@torch.no_grad()
def test_another_bottom_up_network_is_dense():
    backbone, images = build(True), make_images(64, 64)
    expected = dense_of(backbone(images)["p2_prime"])
    backbone.bottom_up = Wrapped(backbone.bottom_up)
    torch.testing.assert_close(backbone(images)["p2_prime"], expected, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "key", [("PRESET", "slim"), ("TEXTURE", "stem_map"), ("P2_PRIME_CHANNELS", 8)]
)
def test_tiles_of_another_texture_or_width_are_not_made(key):
    backbone = build(True, f"MODEL.EFPN.{key[0]}", key[1])
    assert isinstance(backbone(make_images(64, 64))["p2_prime"], torch.Tensor)


@torch.no_grad()
def test_an_exported_pyramid_is_dense():
    backbone, images = build(True), make_images(64, 64)
    exported = torch.export.export(backbone, (images,)).module()
    expected = dense_of(backbone(images)["p2_prime"])
    torch.testing.assert_close(exported(images)["p2_prime"], expected, rtol=0, atol=1e-4)
