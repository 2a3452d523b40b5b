"""Evaluation in two processes is that of one which has the images of both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluation.gather_steps import evaluate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.evaluation.gather_steps", str(folder)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    files = [folder / f"rank{rank}.json" for rank in range(2)]
    assert all(file.is_file() for file in files), run.stderr[-3000:]
    return [json.loads(file.read_text()) for file in files]


def test_the_first_process_has_the_numbers_of_all(ranks, tmp_path):
    together = evaluate(tmp_path, range(1, 9), distributed=False)
    assert together.keys() == ranks[0].keys()
    for name, tasks in together.items():
        assert tasks.keys() == ranks[0][name].keys()
        for task, expected in tasks.items():
            assert ranks[0][name][task] == pytest.approx(expected, nan_ok=True)
    assert together["aitod"]["bbox"]["AP"] > 1
    # All eight images count, though two have no detection.
    assert ranks[0]["tt100k"]["tt100k_protocol"]["images"] == 8


def test_the_other_process_has_none(ranks):
    assert ranks[1] == {"aitod": {}, "tt100k": {}, "visdrone": {}}
