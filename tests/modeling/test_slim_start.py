"""How a slim level starts from a trained FPN detector."""

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from torch import nn
from torch.nn import functional as F

from efpn_d2.checkpoint import EFPNCheckpointer
from efpn_d2.modeling import PyramidExtension
from efpn_d2.modeling.slim_start import (
    can_start_as_p2,
    channel_basis,
    share_inputs,
    start_as_p2,
)
from tests.modeling.helpers import tiny_config
from tests.modeling.test_drop_in import stock_config

pytestmark = pytest.mark.fast

CHANNELS, SLIM = 8, 3


def slim_extension(**options: object) -> PyramidExtension:
    torch.manual_seed(0)
    options = {"texture_channels": 5, "p2_prime_channels": SLIM, "reads": "outputs", **options}
    return PyramidExtension(6, CHANNELS, preset="slim", **options)


def random_basis() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.linalg.qr(torch.randn(CHANNELS, SLIM)).Q


def test_the_basis_is_what_is_read():
    conv, linear = torch.zeros(4, CHANNELS, 3, 3), torch.zeros(2, CHANNELS * 4)
    conv[:, 2] = torch.randn(4, 3, 3)
    linear.view(2, CHANNELS, 4)[:, 5] = torch.randn(2, 4)
    basis = channel_basis([conv, linear], CHANNELS, 2)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2))
    read = (basis @ basis.T).diagonal()
    expected = torch.zeros(CHANNELS)
    expected[[2, 5]] = 1
    torch.testing.assert_close(read, expected)


def test_the_basis_is_the_best_of_its_size():
    torch.manual_seed(0)
    weight = torch.randn(20, CHANNELS, 1, 1) * torch.linspace(0.1, 2, CHANNELS)[:, None, None]
    matrix = weight[:, :, 0, 0]

    def lost(basis: torch.Tensor) -> float:
        return float((matrix - matrix @ basis @ basis.T).norm())

    best = lost(channel_basis([weight], CHANNELS, SLIM))
    singular = torch.linalg.svdvals(matrix)
    assert best == pytest.approx(float(singular[SLIM:].norm()), rel=1e-4)
    assert best < lost(random_basis())


@pytest.mark.parametrize("cells", [(3, 3), ()])
def test_a_layer_that_shares_its_inputs_computes_what_it_did(cells):
    torch.manual_seed(0)
    basis = random_basis()
    shape = (7, CHANNELS, *cells) if cells else (7, CHANNELS * 4)
    weight = torch.randn(shape)
    like = (
        torch.empty(7, CHANNELS + SLIM, *cells) if cells else torch.empty(7, 4 * (CHANNELS + SLIM))
    )
    shared = share_inputs(weight, like, basis)
    assert shared.shape == like.shape
    p2 = torch.randn(2, CHANNELS, 3, 3) if cells else torch.randn(2, CHANNELS, 2, 2)
    both = torch.cat([p2, torch.einsum("nchw,cd->ndhw", p2, basis)], dim=1)
    layer = F.conv2d if cells else (lambda x, w: F.linear(x.flatten(1), w))
    torch.testing.assert_close(layer(both, shared), layer(p2, weight), rtol=1e-4, atol=1e-5)
    # All that lies in the directions comes from P'2.
    from_p2 = shared[:, :CHANNELS] if cells else shared[:, : CHANNELS * 4].view(7, CHANNELS, 4)
    assert torch.einsum("oc...,cd->od...", from_p2, basis).abs().max() < 1e-5


def test_without_directions_p2_prime_is_not_heard_at_first():
    weight = torch.randn(7, CHANNELS, 3, 3)
    padded = share_inputs(weight, torch.empty(7, CHANNELS + SLIM, 3, 3), None)
    assert torch.equal(padded[:, :CHANNELS], weight)
    assert not padded[:, CHANNELS:].any()


@pytest.mark.parametrize("shape", [(7,), (7, CHANNELS, 3, 3)])
def test_equal_shapes_are_copied_and_narrower_ones_kept(shape):
    weight = torch.randn(shape)
    assert share_inputs(weight, torch.empty(shape), random_basis()) is weight
    narrower = torch.randn(7, SLIM, 3, 3)
    assert share_inputs(torch.randn(7, CHANNELS, 3, 3), narrower, None) is narrower


def test_p2_prime_starts_as_p2_bilinearly_up_sampled():
    extension, basis = slim_extension(), random_basis()
    assert can_start_as_p2(extension)
    start_as_p2(extension, basis)
    assert (
        extension.lateral.weight.any()
    )  # a texture without weights would never learn, by its ReLU
    nn.init.zeros_(extension.lateral.weight)
    stem_map, p2, p3 = (
        torch.randn(1, c, s, s) for c, s in ((5, 32), (CHANNELS, 16), (CHANNELS, 8))
    )
    with torch.no_grad():
        p3_prime, p2_prime = extension(stem_map, p2, p3)
    seen = torch.einsum("nchw,cd->ndhw", p2, basis)
    torch.testing.assert_close(p3_prime, seen)
    expected = F.interpolate(seen, scale_factor=2.0, mode="bilinear", align_corners=False)
    inner = slice(1, -1)  # at the border the convolution sees zeros
    torch.testing.assert_close(p2_prime[..., inner, inner], expected[..., inner, inner])


def test_all_of_a_started_extension_learns():
    extension = slim_extension()
    start_as_p2(extension, random_basis())
    maps = [torch.randn(1, c, s, s) for c, s in ((5, 32), (CHANNELS, 16), (CHANNELS, 8))]
    optimizer = torch.optim.SGD(extension.parameters(), lr=0.1)
    before = [x.clone() for x in extension.parameters()]
    for _ in range(3):  # what is behind a zero gets its gradient after that one's first step
        optimizer.zero_grad()
        extension(*maps)[1].square().mean().backward()
        optimizer.step()
    still = [
        name
        for (name, x), old in zip(extension.named_parameters(), before, strict=True)
        if torch.equal(x, old)
    ]
    assert still == []


@pytest.mark.parametrize(
    "options",
    [
        {"reads": "merged"},
        {"norm": "BN"},
        {"upsampler": "nearest"},
        {"p2_prime_channels": CHANNELS},
    ],
)
def test_other_extensions_start_as_they_were_initialised(options):
    assert not can_start_as_p2(slim_extension(**options))


@pytest.mark.parametrize("reads", ["outputs", "merged"])
def test_a_stock_checkpoint_starts_extension_and_heads_together(reads, tmp_path):
    cfg = tiny_config("COCO-InstanceSegmentation/mask_rcnn_R_50_EFPN_1x.yaml")
    cfg.MODEL.EFPN.PRESET = "slim"
    cfg.MODEL.EFPN.READS = reads
    cfg.MODEL.EFPN.SMALL_IN_FEATURES = ["p2", "p2_prime"]
    torch.manual_seed(1)
    stock = build_model(stock_config(cfg))
    DetectionCheckpointer(stock, str(tmp_path)).save("stock")
    model = build_model(cfg)
    new = model.backbone.extension.reduce2.weight.clone()
    EFPNCheckpointer(model).load(str(tmp_path / "stock.pth"))
    layers = [
        (small.weight, own.weight)
        for small, own in (
            (model.roi_heads.small_box_head.fc1, stock.roi_heads.box_head.fc1),
            (model.roi_heads.small_mask_head.mask_fcn1, stock.roi_heads.mask_head.mask_fcn1),
        )
    ]
    reduction = model.backbone.extension.reduce2.weight
    basis = channel_basis([own for _, own in layers], 16, 4) if reads == "outputs" else None
    assert torch.equal(reduction, new if basis is None else basis.T[:, :, None, None])
    for small, own in layers:
        assert torch.equal(small, share_inputs(own, small, basis))
