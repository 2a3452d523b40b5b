"""Threads of the test run: with several processes of pytest-xdist, one thread for each."""

import os

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    """Leave the cores to the processes of the run and to the commands that tests start."""
    if hasattr(config, "workerinput"):
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
