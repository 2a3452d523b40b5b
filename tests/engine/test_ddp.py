"""Data-parallel training on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.engine.ddp_steps import MODELS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """One job for all models, for its processes take longer to start than to train."""
    output_dir = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, "-m", "tests.engine.ddp_steps", str(output_dir)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    return output_dir, run


@pytest.mark.parametrize("model", MODELS)
def test_steps_with_a_head_without_boxes_on_one_rank(model, job):
    """No process waits for another, all parameters learn, and the ranks stay equal."""
    output_dir, run = job
    files = [output_dir / f"{model}_{rank}.pth" for rank in range(2)]
    assert all(file.is_file() for file in files), run.stderr[-3000:]
    first, second = (torch.load(file) for file in files)
    assert first["without_gradient"] == second["without_gradient"] == []
    assert torch.isfinite(first["weights"]).all()
    assert torch.equal(first["weights"], second["weights"])


def test_ranks_share_the_state_of_dcloss(job):
    """Though they see other images, and the small head is without a box in one of them."""
    output_dir, _ = job
    first, second = (torch.load(output_dir / f"dcloss_{rank}.pth")["dcloss"] for rank in range(2))
    assert first
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    for part in ("proposal_generator", "roi_heads.box_predictor"):
        assert first[f"{part}.gradient_balance.cls.updates"].max() == 2


@pytest.mark.parametrize("model", MODELS)
def test_ranks_share_the_statistics_of_batch_normalisation(model, job):
    """Their mean where they were collected; frozen parts keep the ones that they had."""
    output_dir, _ = job
    files = (output_dir / f"{model}_{rank}.pth" for rank in range(2))
    (first, shared), (second, other) = (torch.load(file)["statistics"] for file in files)
    assert torch.equal(shared, other)
    assert torch.allclose(shared, (first + second) / 2)
    frozen = model in ("distill", "head") or model.startswith("head_")
    assert torch.equal(first, second) == frozen


def test_ranks_agree_on_the_stream_and_share_it(job):
    output_dir, _ = job
    first, second = (torch.load(output_dir / f"stock_{rank}.pth") for rank in range(2))
    assert first["seed"] == second["seed"]
    samples = [key for batch in first["batches"] + second["batches"] for key in batch]
    assert len(samples) == 20
    assert len({seed for _, seed in samples}) == 20


@pytest.mark.parametrize("amp", [False, True])
def test_processes_exchange_the_gradients_of_all_parts_once(amp, job):
    """The mean over processes of the mean over their parts: (1.5 + 6.5 + 2 + 14) / 4."""
    output_dir, _ = job
    steps = [torch.load(output_dir / f"steps_{rank}.pth")[f"amp={amp}"] for rank in range(2)]
    assert [step["exchanges"] for step in steps] == [1, 1]
    assert [step["weight"] for step in steps] == [2.0 - 6.0, 2.0 - 6.0]
    assert steps[0]["logged"] == 2.0 * 6.0
