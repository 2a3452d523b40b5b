"""DCLoss in two processes is DCLoss of one process that has the objects of both."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.losses.balance_steps import STEPS, steps

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.losses.balance_steps", str(folder)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    files = [folder / f"{rank}.pth" for rank in range(2)]
    assert all(file.is_file() for file in files), run.stderr[-3000:]
    return [torch.load(file) for file in files]


@pytest.fixture(scope="module")
def together():
    return steps([tuple(sum(lists, []) for lists in zip(*step, strict=True)) for step in STEPS])


def test_all_processes_have_the_state_of_one(ranks, together):
    for states in zip(ranks[0]["states"], ranks[1]["states"], together["states"], strict=True):
        for key in ("gradient_norms", "updates"):
            first, second, expected = (state[key] for state in states)
            assert torch.equal(first, second)
            torch.testing.assert_close(first, expected)
    assert together["states"][-1]["updates"].tolist() == [3, 2]


def test_processes_add_together_what_one_adds(ranks, together):
    """So the weights, and their mean, are those of all objects of all processes."""
    for first, second, expected in zip(
        ranks[0]["extra"], ranks[1]["extra"], together["extra"], strict=True
    ):
        torch.testing.assert_close(first + second, expected)
    assert together["extra"][1] != 0
    # The first process had small objects only, whose weight is not 1 for that.
    assert ranks[0]["extra"][1] != 0
