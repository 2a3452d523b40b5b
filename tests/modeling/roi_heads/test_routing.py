import math

import pytest
import torch
from detectron2.modeling.poolers import assign_boxes_to_levels
from detectron2.structures import Boxes

from efpn_d2.modeling.roi_heads import (
    BOX_ROUTER_REGISTRY,
    BoxRouter,
    EFPNROIHeads,
    SizeRouter,
    is_small_box,
    join_routes,
)
from efpn_d2.modeling.roi_heads.routing import build_box_router
from tests.modeling.helpers import tiny_config

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("width", "height", "small"),
    [
        (56, 56, False),
        (55.99, 56, True),
        (28, 112, False),
        (28, 111.9, True),
        (1, 3136, False),
        (0, 500, True),
        (57, 57, False),
        # Turned inside out: of no area, as a detector's degenerate boxes are.
        (-30, 40, True),
    ],
)
def test_threshold_is_exact_on_the_geometric_mean_of_the_sides(width, height, small):
    box = torch.tensor([[10.0, 20.0, 10.0 + width, 20.0 + height]], dtype=torch.float64)
    assert is_small_box(box, 56.0).tolist() == [small]


def test_56_pixels_are_eq_2_with_minimum_level_1():
    torch.manual_seed(0)
    sides = torch.rand(2000, 2) * 300 + 1
    boxes = torch.cat([torch.zeros(2000, 2), sides], dim=1)
    level = [math.floor(4 + math.log2(math.sqrt(w * h) / 224)) for w, h in sides.tolist()]
    assert is_small_box(boxes, 56.0).tolist() == [x <= 1 for x in level]


def test_112_pixels_are_all_that_stock_fpn_reads_from_p2():
    torch.manual_seed(0)
    boxes = Boxes(torch.cat([torch.zeros(2000, 2), torch.rand(2000, 2) * 300 + 1], dim=1))
    on_p2 = assign_boxes_to_levels([boxes], 2, 5, 224, 4) == 0
    assert torch.equal(is_small_box(boxes.tensor, 112.0), on_p2)


@pytest.mark.parametrize("route", [[], [0, 0], [1, 1, 1], [1, 0, 0, 1, 0]])
def test_join_restores_the_order_of_the_boxes(route):
    route = torch.tensor(route, dtype=torch.bool)
    rows = torch.arange(len(route) * 3.0).reshape(-1, 3)
    assert torch.equal(join_routes(route, rows[route], rows[~route]), rows)


def test_join_passes_gradients_to_the_head_that_has_the_box():
    route = torch.tensor([True, False, True])
    small, rest = torch.ones(2, 1, requires_grad=True), torch.ones(1, 1, requires_grad=True)
    (join_routes(route, small, rest) * torch.tensor([[1.0], [2.0], [3.0]])).sum().backward()
    assert small.grad.flatten().tolist() == [1, 3]
    assert rest.grad.flatten().tolist() == [2]


def test_routing_functions_can_be_scripted():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 99, 99]])
    scripted = torch.jit.script(is_small_box)
    assert scripted(boxes, 56.0).tolist() == [True, False]
    join = torch.jit.script(join_routes)
    route = torch.tensor([False, True])
    assert join(route, torch.tensor([1]), torch.tensor([2])).tolist() == [2, 1]


class ByLongSide(BoxRouter):
    """Another rule, without a size to configure."""

    def forward(self, boxes):
        return (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) < 30


BOXES = torch.tensor([[0.0, 0, 10, 40], [0, 0, 29, 29], [5, 5, 5, 5], [0, 0, 30, 30]])


@pytest.mark.parametrize(("mode", "expected"), [("auto", "reassign"), ("duplicate", "duplicate")])
def test_a_registered_router_is_built_with_the_configured_mode(mode, expected, monkeypatch):
    monkeypatch.setitem(BOX_ROUTER_REGISTRY._obj_map, "ByLongSide", ByLongSide)
    cfg = tiny_config()
    cfg.merge_from_list(["MODEL.EFPN.ROUTER", "ByLongSide", "MODEL.EFPN.ROUTING", mode])
    router = build_box_router(cfg)
    assert (type(router), router.mode) == (ByLongSide, expected)
    assert router(BOXES).tolist() == [False, True, True, False]
    assert router(torch.zeros(0, 4)).shape == (0,)


def test_at_a_scale_the_same_objects_are_small():
    for router in (ByLongSide(), SizeRouter(small_box_size=20.5)):
        scaled = router.at_scale(2.5)
        assert scaled(2.5 * BOXES).tolist() == router(BOXES).tolist()
        assert scaled.mode == router.mode
        assert scaled(BOXES).tolist() == [True] * 4


def test_a_router_and_heads_that_do_not_fit_are_refused():
    arguments = {"box_in_features": [], "box_pooler": None, "box_head": None}
    arguments |= {"box_predictor": None, "num_classes": 1, "batch_size_per_image": 1}
    arguments |= {"positive_fraction": 0.5, "proposal_matcher": None}
    assert EFPNROIHeads(**arguments).router.mode == "none"
    with pytest.raises(ValueError, match="mode is duplicate, but there is no small_box_head"):
        EFPNROIHeads(**arguments, router=SizeRouter(mode="duplicate"))
    with pytest.raises(ValueError, match="mode is none, but there is a small_box_head"):
        head = torch.nn.Identity()
        EFPNROIHeads(**arguments, router=SizeRouter(mode="none"), small_box_head=head)
