import argparse

import pytest
import torch
from detectron2.utils.events import EventStorage
from train_step import BARE, DETECTOR_CASES, DISTILL, FPN, FPN_2X, make_case

pytestmark = pytest.mark.fast

ARGUMENTS = argparse.Namespace(size=64, batch=1, depth=18, preset="paper", device="cpu")


def changed_by(name):
    """Names of the parameters that a step of the case changes."""
    torch.manual_seed(0)
    with EventStorage():
        model, step = make_case(name, ARGUMENTS)
        before = {k: v.clone() for k, v in model.named_parameters()}
        step()
    return {k for k, v in model.named_parameters() if not torch.equal(v, before[k])}


def test_the_bare_passes_train_what_the_step_trains():
    trained = changed_by(DISTILL)
    assert trained
    assert all(".extension." in name for name in trained)
    assert changed_by(BARE) == trained


@pytest.mark.parametrize("name", [FPN, FPN_2X, *DETECTOR_CASES])
def test_the_step_of_a_detector_trains_the_whole_detector(name):
    parts = {key.split(".")[0] for key in changed_by(name)}
    assert parts == {"backbone", "proposal_generator", "roi_heads"}
