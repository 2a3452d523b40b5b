import subprocess
import sys
import time

import pytest
import torch
from detectors import DETECTORS, Detector, build_detector, make_proposals, make_run
from layer_costs import LABEL, OUTSIDE, count_macs, time_layers
from pyramids import PYRAMIDS, build_pyramid
from shares import shares_computed
from timing import cpu_seconds_of_children, summarize, time_in_turns
from torch import nn

pytestmark = pytest.mark.fast

CONFIG = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"
NARROW = ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]
NARROW += ["MODEL.FPN.OUT_CHANNELS", 8, "MODEL.ROI_BOX_HEAD.FC_DIM", 8]


def test_all_run_in_turns_and_warm_up_does_not_count():
    log = []

    def make(name, seconds):
        return lambda: (time.sleep(seconds), log.append(name))

    seconds = time_in_turns({"A": make("A", 0.001), "B": make("B", 0.01)}, rounds=3, warmup=1)
    assert log == ["B", "A", "A", "B", "B", "A", "A", "B"]
    assert {name: len(taken) for name, taken in seconds.items()} == {"A": 3, "B": 3}
    assert min(seconds["B"]) >= 0.01


def test_ratios_are_of_the_same_round():
    """A machine that gets four times slower changes no ratio."""
    rows = summarize({"FPN": [1.0, 1.0, 4.0, 4.0, 4.0], "B": [1.5, 1.4, 6.4, 6.0, 6.0]}, "FPN")
    assert rows["FPN"] == {"seconds": 4.0, "ratio": 1.0, "ratio_quartiles": [1.0, 1.0]}
    assert rows["B"]["ratio"] == 1.5
    assert rows["B"]["ratio_quartiles"] == [1.45, 1.55]


def test_one_round_has_no_spread():
    rows = summarize({"FPN": [2.0], "B": [3.0]}, "FPN")
    assert rows["B"] == {"seconds": 3.0, "ratio": 1.5, "ratio_quartiles": [1.5, 1.5]}


@pytest.mark.parametrize("name", [name for name in PYRAMIDS if "+" in name])
def test_a_variant_has_what_its_name_says(name):
    backbone = build_pyramid(CONFIG, PYRAMIDS[name])
    keys = backbone.state_dict().keys()
    for part in ("cem", "fbsm", "sgdm"):
        assert any(f".{part}." in k for k in keys) == (part.upper() in name)
    assert any(k.startswith("extension.") for k in keys) == name.startswith("EFPN")
    assert not backbone.training


@pytest.mark.parametrize("active", [0.02, 0.1, 0.3, 1.0])
@torch.no_grad()
def test_proposals_keep_the_share_of_tiles_active(active):
    options = ["MODEL.EFPN.LAZY_TILE_SIDES", [32], "MODEL.EFPN.LAZY_DENSE_ABOVE", 1e6]
    name = f"EFPN paper, lazy, {active * 100:.0f} % active"
    detector = Detector([*DETECTORS[name].options, *NARROW, *options], active)
    shares = []
    with shares_computed(shares):
        make_run(build_detector(CONFIG, detector, 640, "cpu"), detector, 640)()
    assert shares[0] == pytest.approx(active)


def test_all_detectors_get_as_many_small_and_large_boxes():
    for active in (0.02, 1.0):
        boxes = make_proposals(800, active)
        sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
        assert len(boxes) == 1000
        assert int((sides < 112).sum()) >= 300
        assert boxes.min() >= 0
        assert boxes.max() <= 800


@torch.no_grad()
def test_multiply_accumulates_by_part():
    fpn, efpn = (
        Detector([*DETECTORS[name].options, *NARROW]) for name in ("FPN", "EFPN paper, dense")
    )
    counts = []
    for detector in (fpn, efpn):
        model = build_detector(CONFIG, detector, 64, "cpu")
        counts.append(count_macs(model, make_run(model, detector, 64)))
    parts = {"bottom_up", "fpn", "proposal_generator", "roi_heads"}
    assert counts[0].keys() == parts
    assert counts[1].keys() == parts | {"extension"}
    # The stem, 3 to 64 channels by 7 x 7 at 32 x 32, is a part of it.
    assert counts[0]["bottom_up"] > 32 * 32 * 3 * 64 * 49 / 1e9
    for part in ("fpn", "proposal_generator"):
        assert counts[0][part] == counts[1][part]


@torch.no_grad()
def test_seconds_of_layers_by_part_and_outside(monkeypatch):
    now = 0.0

    def advance(seconds):
        nonlocal now
        now += seconds

    monkeypatch.setattr("layer_costs.time.perf_counter", lambda: now)
    conv, linear = nn.Conv2d(1, 1, 1), nn.Linear(4, 4)
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"extension": conv}), "roi_heads": linear})
    run_conv = conv._conv_forward
    monkeypatch.setattr(conv, "_conv_forward", lambda *a: (advance(3.0), run_conv(*a))[1])

    def run():
        advance(1.0)
        linear(conv(torch.zeros(1, 1, 4, 4)))
        advance(2.0)

    assert time_layers(model, run, 3) == {"extension": 3.0, "roi_heads": 0.0, OUTSIDE: 3.0}
    assert not hasattr(linear, LABEL)
    linear(torch.zeros(1, 4))  # which nothing counts any more


def test_cpu_time_of_processes_leaves_out_their_waiting():
    def start(code):
        return lambda: subprocess.run([sys.executable, "-S", "-c", code], check=True)

    runs = {"wait": start("import time; time.sleep(0.5)"), "work": start("sum(range(30000000))")}
    seconds = time_in_turns(runs, 1, 0, clock=cpu_seconds_of_children)
    assert 0 < seconds["wait"][0] < seconds["work"][0]
