import pytest
import torch
from ablation_rows import ROWS, row_config
from detectron2.modeling import build_backbone
from probes import P3PrimePyramid, TeacherP2Pyramid
from row_spec import PROTOCOLS
from torch.nn import functional as F

pytestmark = pytest.mark.fast


def build(row, variant="native1x"):
    torch.manual_seed(0)
    weights = dict.fromkeys(ROWS, "")
    cfg = row_config(ROWS[row], PROTOCOLS["small"], variant, 0, weights)
    return build_backbone(cfg).eval()


@pytest.fixture(scope="module")
def efpn():
    return build("efpn")


@torch.no_grad()
def test_p3_prime_pyramid_is_the_output_convolution_of_level_3_on_p3_prime(efpn):
    probe = build("p3_prime")
    assert isinstance(probe, P3PrimePyramid)
    probe.load_state_dict(efpn.state_dict())
    x = torch.randn(1, 3, 64, 96)
    maps = probe(x)
    assert list(maps) == list(probe.output_shape()) == ["p3"]
    assert maps["p3"].shape == (1, 64, 16, 24)
    assert torch.equal(maps["p3"], efpn.fpn_output3(efpn.student_maps(x)["p3_prime"]))


@torch.no_grad()
def test_teacher_p2_pyramid_in_student_pixels(efpn):
    probe = build("teacher_p2")
    assert isinstance(probe, TeacherP2Pyramid)
    probe.load_state_dict(efpn.state_dict())
    x = torch.randn(1, 3, 64, 96)
    maps, expected = probe(x), efpn(x)
    larger = F.interpolate(x, scale_factor=2.0, mode="bilinear")
    assert torch.equal(maps["p2_prime"], efpn(larger)["p2"])
    for level in ("p2", "p3", "p4", "p5", "p6"):
        assert torch.equal(maps[level], expected[level])
    assert {k: v.stride for k, v in probe.output_shape().items()} == {
        k: v.stride for k, v in efpn.output_shape().items()
    }


@torch.no_grad()
def test_teacher_p2_pyramid_in_teacher_pixels(efpn):
    probe = build("teacher_p2", "native2x")
    probe.load_state_dict(efpn.state_dict())
    x = torch.randn(1, 3, 128, 256)
    maps, expected = probe(x), efpn(F.avg_pool2d(x, 2))
    assert torch.equal(maps["p2_prime"], efpn(x)["p2"])
    assert torch.equal(maps["p2"], expected["p2"])
    for level, shape in probe.output_shape().items():
        assert x.shape[-1] == maps[level].shape[-1] * shape.stride
    assert probe.size_divisibility == 2 * efpn.size_divisibility
