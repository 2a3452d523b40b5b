import time

import pytest
import torch
from speed import summarize, time_in_turns
from torch import nn
from variants import VARIANTS, build_variant

pytestmark = pytest.mark.fast


class Recorder(nn.Module):
    """Takes some time and notes that it ran."""

    def __init__(self, name, log, seconds):
        super().__init__()
        self.name, self.log, self.seconds = name, log, seconds

    def forward(self, image):
        time.sleep(self.seconds)
        self.log.append((self.name, tuple(image.shape)))


def test_models_run_in_turns_on_their_own_image_and_warm_up_does_not_count():
    log = []
    models = {"FPN": Recorder("FPN", log, 0.001), "B": Recorder("B", log, 0.01)}
    images = {"FPN": torch.zeros(1, 2), "B": torch.zeros(1, 4)}
    seconds = time_in_turns(models, images, rounds=3, warmup=1)
    assert [name for name, _ in log] == ["B", "FPN", "FPN", "B", "B", "FPN", "FPN", "B"]
    assert set(log) == {("FPN", (1, 2)), ("B", (1, 4))}
    assert {name: len(taken) for name, taken in seconds.items()} == {"FPN": 3, "B": 3}
    assert min(seconds["B"]) >= 0.01


def test_ratios_are_of_the_same_round():
    """A machine that gets four times slower changes no ratio."""
    rows = summarize({"FPN": [1.0, 1.0, 4.0, 4.0, 4.0], "B": [1.5, 1.4, 6.4, 6.0, 6.0]})
    assert rows["FPN"] == {"seconds": 4.0, "ratio": 1.0, "ratio_quartiles": [1.0, 1.0]}
    assert rows["B"]["ratio"] == 1.5
    assert rows["B"]["ratio_quartiles"] == [1.45, 1.55]


def test_one_round_has_no_spread():
    rows = summarize({"FPN": [2.0], "B": [3.0]})
    assert rows["B"] == {"seconds": 3.0, "ratio": 1.5, "ratio_quartiles": [1.5, 1.5]}


@pytest.mark.parametrize("name", [name for name in VARIANTS if "+" in name])
def test_a_variant_has_what_its_name_says(name):
    backbone = build_variant("COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml", VARIANTS[name])
    keys = backbone.state_dict().keys()
    for part in ("cem", "fbsm", "sgdm"):
        assert any(f".{part}." in k for k in keys) == (part.upper() in name)
    assert any(k.startswith("extension.") for k in keys) == name.startswith("EFPN")
    assert not backbone.training
