"""P'2 that was made part by part is P'2 that was made at once."""

import pytest
import torch
from detectron2.modeling import build_backbone
from torch import nn

from efpn_d2.modeling.backbone import PyramidExtension
from efpn_d2.modeling.lazy import parts as parts_module
from tests.modeling.helpers import tiny_config

pytestmark = pytest.mark.fast

FASTER = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_EFPN_1x.yaml"
CELL = 4 * 64  # bytes of C'2 of the tiny network, which has more channels than P'2


def build(config=FASTER, *opts):
    cfg = tiny_config(config)
    cfg.merge_from_list(list(opts))
    torch.manual_seed(0)
    return build_backbone(cfg).eval()


def make_images(count, height, width):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def parts(monkeypatch):
    """Each call of the extension with a part of C'2, which is about ``side`` cells wide."""
    calls = []

    def watch(side):
        whole = PyramidExtension.p2_prime

        def record(self, c2_prime, p3_prime):
            if c2_prime.dtype != torch.double:  # as the probe for halos is
                calls.append(tuple(map(int, c2_prime.shape)))
            return whole(self, c2_prime, p3_prime)

        monkeypatch.setattr(parts_module, "PART_BYTES", CELL * side**2)
        monkeypatch.setattr(PyramidExtension, "p2_prime", record)
        return calls

    return watch


@pytest.mark.parametrize("size", [(160, 224), (256, 96)])
@pytest.mark.parametrize("preset", ["paper", "reference"])
@pytest.mark.parametrize("config", [FASTER, RETINANET])
def test_every_map_is_that_of_the_undivided_pass(config, preset, size, parts):
    backbone = build(config, "MODEL.EFPN.PRESET", preset)
    images = make_images(2, *size)
    expected = backbone(images)  # recorded by autograd, so in one piece
    calls = parts(32)
    with torch.no_grad():
        found = backbone(images)
    assert len(calls) > 2 * 4
    assert all(n == 1 and max(h, w) <= 40 for n, _, h, w in calls)
    assert found.keys() == expected.keys()
    for name, features in found.items():
        torch.testing.assert_close(features, expected[name], rtol=0, atol=1e-4, msg=name)


def test_what_is_inserted_on_p2_prime_comes_after(parts):
    backbone = build(FASTER, "MODEL.EFPN_BS.FBSM_ENABLED", True, "MODEL.EFPN_BS.CEM_ENABLED", True)
    with torch.no_grad():
        for gate in backbone.enhancement.parameters():
            gate.add_(0.1)
    images = make_images(1, 128, 160)
    expected = backbone(images)["p2_prime"]
    calls = parts(32)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images)["p2_prime"], expected, rtol=0, atol=1e-3)
    assert len(calls) > 1


@pytest.mark.parametrize(
    ("norm", "dtype"),
    [("", torch.bfloat16), ("LN", torch.float32)],  # as autocast chooses for the last layer
)
def test_in_half_precision(norm, dtype, parts):
    backbone, images = build(FASTER, "MODEL.EFPN.NORM", norm), make_images(1, 160, 160)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = backbone(images)["p2_prime"]
        calls = parts(32)
        found = backbone(images)["p2_prime"]
    assert len(calls) > 1
    assert found.dtype == expected.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "name", ["bottom_up", "bottom_up.res2.0.conv1", "extension", "extension.upsampler.sub_pixel"]
)
def test_who_waits_for_a_call_gets_it(name, parts):
    backbone, seen = build(), []
    backbone.get_submodule(name).register_forward_hook(lambda *_: seen.append(name))
    calls = parts(16)
    with torch.no_grad():
        backbone(make_images(1, 128, 128))
    assert seen == [name] * (2 if "res2" in name else 1)  # of C2 and of C'2
    assert len(calls) == 1


def test_small_maps_stay_in_one_piece(parts):
    backbone = build()
    calls = parts(64)  # two parts would be 8192 cells
    with torch.no_grad():
        backbone(make_images(3, 128, 256))
        assert calls == [(3, 64, 64, 128)]
        backbone(make_images(1, 160, 256))
    assert len(calls) > 2


@pytest.mark.parametrize(
    "opts",
    [
        ("MODEL.EFPN.NORM", "GN", "MODEL.FPN.OUT_CHANNELS", 32),
        ("MODEL.SGDM.AFTER_STAGES", ["res2"]),
    ],
)
def test_what_reads_its_whole_input_is_not_divided(opts, parts):
    backbone = build(FASTER, *opts)
    images = make_images(1, 128, 128)
    expected = backbone(images)["p2_prime"]
    calls = parts(16)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images)["p2_prime"], expected, rtol=0, atol=1e-4)
    assert calls == [(1, 64, 64, 64)]


def test_in_training_and_when_traced_it_is_not_divided(parts):
    backbone = build()
    calls = parts(16)
    images = make_images(1, 128, 128)
    with torch.no_grad():
        backbone.train()(images)
        torch.jit.trace(backbone.eval(), images, strict=False, check_trace=False)
    assert set(calls) == {(1, 64, 64, 64)}


def test_a_compiled_extension_is_called_in_one_piece(parts):
    backbone = build(FASTER, "MODEL.EFPN.COMPILE", "eager")
    with torch.no_grad():
        calls = parts(16)
        backbone(make_images(1, 128, 128))
    assert set(calls) == {(1, 64, 64, 64)}


def test_another_bottom_up_network_need_not_know_of_parts():
    class Own(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    backbone = build()
    images = make_images(1, 128, 128)
    with torch.no_grad():
        expected = backbone(images)["p2_prime"]
        backbone.bottom_up = Own(backbone.bottom_up)
        assert torch.equal(backbone(images)["p2_prime"], expected)


@pytest.mark.parametrize(("length", "most"), [(64, 64), (66, 64), (400, 148), (512, 20)])
def test_spans_cover_everything_once_in_even_steps(length, most):
    spans = parts_module._spans(length, most)
    assert [cell for span in spans for cell in range(*span)] == list(range(length))
    assert all(begin % 2 == 0 for begin, _ in spans)
    assert max(end - begin for begin, end in spans) <= most + 2
    assert len(spans) == -(-length // most)
