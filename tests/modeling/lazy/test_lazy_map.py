"""What is pooled from lazy P'2 is what is pooled from the dense map."""

import detectron2.export.torchscript_patch  # noqa: F401  makes stock backbones scriptable
import pytest
import torch
from detectron2.modeling import build_backbone
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import nn
from torch.nn import functional as F

from efpn_d2.modeling import EFPN, UPSAMPLER_REGISTRY, Upsampler
from efpn_d2.modeling.lazy import LazyP2Prime
from efpn_d2.modeling.lazy import tiles as tiles_module
from efpn_d2.modeling.lazy.tiles import compute_tiles, tiles_cost
from tests.modeling.helpers import tiny_config

pytestmark = pytest.mark.fast

TOLERANCE = {"rtol": 0, "atol": 1e-4}


def build(*opts, tile_sides=(16,), dense_above=1e9):
    cfg = tiny_config()
    cfg.merge_from_list(
        [
            "MODEL.EFPN.LAZY", True,
            "MODEL.EFPN.LAZY_TILE_SIDES", list(tile_sides),
            "MODEL.EFPN.LAZY_DENSE_ABOVE", float(dense_above),
            *opts,
        ]
    )  # fmt: skip
    torch.manual_seed(0)
    return build_backbone(cfg).eval()


@torch.no_grad()
def lazy_and_dense(backbone, images):
    lazy = backbone(images)["p2_prime"]
    dense = EFPN.forward(backbone, images)["p2_prime"]
    assert isinstance(lazy, LazyP2Prime)
    return lazy, dense


def make_images(count, height, width):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(3))


def make_pooler(kind="ROIAlignV2", ratio=0):
    return ROIPooler(7, (0.5,), ratio, kind)


def layout(name, height, width):
    """Boxes (R, 4) of one image, in pixels."""
    h, w = float(height), float(width)
    corner = [[0, 0, 9, 7], [w - 9, 0, w, 7], [0, h - 7, 9, h], [w - 9, h - 7, w, h]]
    generator = torch.Generator().manual_seed(4)
    start = torch.rand(60, 2, generator=generator) * torch.tensor([w, h])
    spread = torch.cat([start, start + torch.rand(60, 2, generator=generator) * 40], dim=1)
    limit = torch.tensor([w, h, w, h])
    boxes = {
        "none": [],
        "one": [[w / 2 - 5, h / 2 - 5, w / 2 + 5, h / 2 + 5]],
        "corners": corner,
        "borders": [[0, h / 2, 6, h / 2 + 30], [w / 2, 0, w / 2 + 30, 5], [w - 3, 8, w, 12]],
        "across tiles": [[28, 28, 36, 36], [30, 4, 33, 60], [2, 31.5, 62, 32.5]],
        "long": [[0, 20, w, 23], [40, 0, 42, h]],
        "empty boxes": [[10, 10, 10, 10], [w, h, w, h], [0, 0, 0, 5]],
        "spread": spread.tolist(),
        "all": [[0, 0, w, h]],
    }
    return torch.tensor(boxes[name]).reshape(-1, 4).minimum(limit)


LAYOUTS = (
    "none", "one", "corners", "borders", "across tiles", "long", "empty boxes", "spread", "all"
)  # fmt: skip


@pytest.mark.parametrize("side", [8, 16, 40, 256])
@pytest.mark.parametrize("size", [(64, 96), (160, 128), (32, 32)])
@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_pooled_features_equal_those_of_the_dense_map(preset, size, side):
    backbone = build("MODEL.EFPN.PRESET", preset, tile_sides=[side])
    images = make_images(2, *size)
    for name in LAYOUTS:
        lazy, dense = lazy_and_dense(backbone, images)
        boxes = [Boxes(layout(x, *size)) for x in (name, "one")]
        expected = make_pooler()([dense], boxes)
        with torch.no_grad():
            pooled = lazy.pool(make_pooler(), boxes)
        torch.testing.assert_close(pooled, expected, **TOLERANCE, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("upsampler", ["espcn", "nearest"])
@pytest.mark.parametrize("fuse", ["sum", "avg"])
def test_other_upsamplers(upsampler, fuse):
    backbone = build("MODEL.EFPN.UPSAMPLER", upsampler, "MODEL.FPN.FUSE_TYPE", fuse)
    lazy, dense = lazy_and_dense(backbone, make_images(1, 128, 128))
    boxes = [Boxes(layout("spread", 128, 128))]
    expected = make_pooler()([dense], boxes)
    torch.testing.assert_close(lazy.pool(make_pooler(), boxes), expected, **TOLERANCE)


class Wide(Upsampler):
    """Reads further than FTT, and all that it is given."""

    def __init__(self, channels):
        super().__init__()
        self.content = nn.Conv2d(channels, 3, 7, padding=3)
        self.texture = nn.Conv2d(channels + 3, channels, 5, padding=8, dilation=4)

    def upsample(self, p3):
        return F.interpolate(self.content(p3), scale_factor=2.0, mode="bilinear")

    def transfer(self, up, p2, p3):
        return self.texture(torch.cat([p2, up], dim=1)) + F.interpolate(p3, scale_factor=2.0)


class Aligned(Wide):
    """Where it reads depends on the size of the map."""

    def upsample(self, p3):
        content = self.content(p3)
        return F.interpolate(content, scale_factor=2.0, mode="bilinear", align_corners=True)


@pytest.mark.parametrize(("upsampler", "by_tiles"), [(Wide, True), (Aligned, False)])
def test_a_registered_upsampler_is_lazy_where_it_can_be(upsampler, by_tiles, monkeypatch):
    monkeypatch.setitem(UPSAMPLER_REGISTRY._obj_map, "Registered", upsampler)
    backbone = build("MODEL.EFPN.UPSAMPLER", "Registered")
    lazy, dense = lazy_and_dense(backbone, make_images(1, 256, 256))
    boxes = [Boxes(torch.tensor([[100.0, 120.0, 110.0, 128.0], [0.0, 250.0, 6.0, 256.0]]))]
    expected = make_pooler()([dense], boxes)
    torch.testing.assert_close(lazy.pool(make_pooler(), boxes), expected, **TOLERANCE)
    assert (lazy.active_share < 1) == by_tiles


@pytest.mark.parametrize(("kind", "ratio"), [("ROIAlign", 0), ("ROIAlign", 2), ("ROIAlignV2", 2)])
def test_both_conventions_of_roi_align(kind, ratio):
    lazy, dense = lazy_and_dense(build(), make_images(1, 96, 128))
    boxes = [Boxes(torch.cat([layout(name, 96, 128) for name in ("spread", "across tiles")]))]
    pooler = make_pooler(kind, ratio)
    expected = pooler([dense], boxes)
    torch.testing.assert_close(lazy.pool(pooler, boxes), expected, **TOLERANCE)


def test_no_more_than_the_tiles_that_are_read_is_computed(monkeypatch):
    lazy, _ = lazy_and_dense(build(), make_images(2, 128, 128))
    seen = []
    compute = compute_tiles

    def record(maps, profile, side, tiles):
        seen.append(list(tiles))
        return compute(maps, profile, side, tiles)

    monkeypatch.setattr("efpn_d2.modeling.lazy.lazy_map.compute_tiles", record)
    box = Boxes(torch.tensor([[40.0, 70.0, 50.0, 80.0]]))  # cells 20-25, 35-40: tile (2, 1)
    other = Boxes(torch.tensor([[4.0, 4.0, 8.0, 40.0]]))  # cells 2-4, 2-20: tiles (0, 0), (1, 0)
    pooler = make_pooler()
    lazy.pool(pooler, [box, other])
    assert seen == [[(0, 2, 1), (1, 0, 0), (1, 1, 0)]]
    assert lazy.active_share == pytest.approx(3 / 32)
    lazy.pool(pooler, [box, box])
    assert seen[1:] == [[(1, 2, 1)]]
    lazy.pool(pooler, [box, box])
    assert len(seen) == 2


def test_however_tiles_are_joined_and_divided_they_are_the_same(monkeypatch):
    batches = []
    compute = tiles_module._compute_blocks
    monkeypatch.setattr(
        tiles_module, "_compute_blocks", lambda *a: (batches.append(a[3]), compute(*a))[1]
    )
    boxes = [Boxes(layout("spread", 96, 160))] * 2
    pooled, tiles = {}, {}
    for most in (10**4, 3, 1):
        batches.clear()
        monkeypatch.setattr(tiles_module, "CPU_CELLS", most * 16**2)
        lazy, _ = lazy_and_dense(build(), make_images(2, 96, 160))
        pooled[most] = lazy.pool(make_pooler(), boxes)
        tiles[most] = [x for batch in batches for block in batch for x in block.tiles]
        for batch in batches:
            assert sum(len(block.tiles) for block in batch) <= most
            assert len({block.shape for block in batch}) == 1
        assert (max(len(block.tiles) for batch in batches for block in batch) > 1) == (most > 1)
    for most in (10**4, 3):
        assert sorted(tiles[most]) == sorted(tiles[1])
        torch.testing.assert_close(pooled[most], pooled[1], rtol=0, atol=1e-5)


def test_joined_tiles_cost_less_than_single_ones():
    backbone = build()
    lazy, _ = lazy_and_dense(backbone, make_images(1, 128, 128))
    profile = lazy._get_profile()
    apart, joined = [(0, 1, 1), (0, 3, 1)], [(0, 1, 1), (0, 2, 1)]
    costs = [tiles_cost(profile, 16, tiles, (64, 64)) for tiles in (apart[:1], apart, joined)]
    assert costs[1] == 2 * costs[0]
    assert costs[0] < costs[2] < costs[1]
    # On a GPU each is computed by itself, all in one call.
    assert tiles_cost(profile, 16, joined, (64, 64), cuda=True) == costs[1]


def test_tiles_at_the_border_count_with_the_cells_they_have():
    lazy, _ = lazy_and_dense(build(tile_sides=[32]), make_images(1, 96, 96))  # 48 x 48 cells
    lazy.pool(make_pooler(), [Boxes(torch.tensor([[90.0, 90.0, 95.0, 95.0]]))])
    assert lazy.active_share == pytest.approx(16**2 / 48**2)


def test_the_cheapest_side_is_chosen(monkeypatch):
    monkeypatch.setattr(tiles_module, "CPU_CELLS", 1)  # single tiles, as on a GPU
    boxes = [Boxes(torch.tensor([[100.0, 100.0, 104.0, 104.0]]))]
    lazy, _ = lazy_and_dense(build(tile_sides=[16, 64], dense_above=0.9), make_images(1, 512, 512))
    lazy.pool(make_pooler(), boxes)
    assert lazy._side == 16
    everywhere = torch.cartesian_prod(*[torch.arange(4.0, 256, 16)] * 2).repeat(1, 2)
    everywhere[:, 2:] += 4
    lazy, _ = lazy_and_dense(build(tile_sides=[16, 64], dense_above=9.0), make_images(1, 256, 256))
    lazy.pool(make_pooler(), [Boxes(everywhere)])
    assert lazy._side == 64  # fewer halos
    lazy, _ = lazy_and_dense(build(tile_sides=[16, 64], dense_above=0.9), make_images(1, 256, 256))
    lazy.pool(make_pooler(), [Boxes(everywhere)])
    assert lazy.active_share == 1.0
    assert lazy._tiles is None


def test_what_has_become_dense_stays_equal():
    backbone = build(tile_sides=[16], dense_above=0.5)
    lazy, dense = lazy_and_dense(backbone, make_images(1, 256, 256))
    pooler, few = make_pooler(), [Boxes(torch.tensor([[8.0, 8.0, 16.0, 16.0]]))]
    lazy.pool(pooler, few)
    assert lazy.active_share < 1
    lazy.pool(pooler, [Boxes(layout("all", 256, 256))])
    assert lazy.active_share == 1.0
    torch.testing.assert_close(lazy.pool(pooler, few), pooler([dense], few), **TOLERANCE)
    torch.testing.assert_close(lazy.dense(), dense, **TOLERANCE)


def test_it_tells_the_shape_of_the_dense_map():
    lazy, dense = lazy_and_dense(build(), make_images(2, 64, 96))
    assert lazy.shape == dense.shape
    assert (lazy.dtype, lazy.device) == (dense.dtype, dense.device)
    assert lazy.active_share == 0


@pytest.mark.parametrize(
    "opts",
    [
        ("MODEL.SGDM.ON_LEVELS", ["p2_prime"]),
        ("MODEL.EFPN_BS.FBSM_ENABLED", True),
        ("MODEL.EFPN.RPN_ON_P2_PRIME", True),
        ("MODEL.RPN.IN_FEATURES", ["p2_prime", "p3", "p4", "p5", "p6"]),
        ("MODEL.ROI_HEADS.IN_FEATURES", ["p2_prime", "p3", "p4", "p5"]),
        ("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["p2_prime", "p3", "p4", "p5"]),
    ],
)
def test_what_reads_all_of_p2_prime_makes_it_dense(opts, caplog):
    backbone = build(*opts)
    assert isinstance(backbone(make_images(1, 64, 64))["p2_prime"], torch.Tensor)
    assert "P'2 is computed densely" in caplog.text


@pytest.mark.parametrize(
    "opts",
    [
        ("MODEL.EFPN.NORM", "GN", "MODEL.FPN.OUT_CHANNELS", 32),
        ("MODEL.SGDM.AFTER_STAGES", ["res2"]),
    ],
)
def test_what_reads_its_whole_input_makes_it_dense(opts, caplog):
    lazy, dense = lazy_and_dense(build(*opts), make_images(1, 64, 64))
    boxes = [Boxes(layout("one", 64, 64))]
    with torch.no_grad():
        expected = make_pooler()([dense], boxes)
        torch.testing.assert_close(lazy.pool(make_pooler(), boxes), expected, rtol=0, atol=1e-4)
    assert lazy.active_share == 1.0
    assert "P'2 is computed densely" in caplog.text


def test_in_training_it_is_dense():
    outputs = build().train()(make_images(1, 64, 64))
    assert outputs["p2_prime"].requires_grad


def test_traced_and_scripted_it_is_dense():
    backbone = build()
    example, other = make_images(1, 64, 64), make_images(2, 64, 64)[1:]
    with torch.no_grad():
        traced = torch.jit.trace(backbone, example, strict=False)
        scripted = torch.jit.script(backbone)
        _, dense = lazy_and_dense(backbone, other)
        for exported in (traced, scripted):
            torch.testing.assert_close(exported(other)["p2_prime"], dense)


@pytest.mark.parametrize("sides", [[], [12], [0], [16.0], ["16"], [[16]]])
def test_tile_sides_that_do_not_fit_are_refused(sides):
    with pytest.raises(ValueError, match="LAZY_TILE_SIDES .* multiples of 8"):
        build(tile_sides=sides)


@pytest.mark.parametrize("share", [-0.5, float("nan")])
def test_a_cost_that_is_no_share_is_refused(share):
    with pytest.raises(ValueError, match="LAZY_DENSE_ABOVE is .*: .*P'2's cost"):
        build(dense_above=share)


def test_a_tile_is_not_larger_than_the_map():
    lazy, dense = lazy_and_dense(build(tile_sides=[4096]), make_images(2, 64, 96))
    boxes = [Boxes(layout("one", 64, 96)), Boxes(layout("none", 64, 96))]
    with torch.no_grad():
        found = lazy.pool(make_pooler(), boxes)
    torch.testing.assert_close(found, make_pooler()([dense], boxes), **TOLERANCE)
    assert lazy.active_share == 0.5
    assert lazy._tiles.shape[2:] == (48, 48)
