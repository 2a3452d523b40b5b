"""Random numbers as a function of the position in the training, not of earlier computations."""

import contextlib
import random
from collections.abc import Iterator
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """Purpose of a derived seed, so that equal counters never share a random stream."""

    ORDER = 0
    SAMPLE = 1
    STEP = 2


def derive_seed(base_seed: int, purpose: Purpose, *counters: int) -> int:
    """Return a well-mixed 32-bit seed, the same on every machine.

    Args:
        base_seed: seed of the whole training, >= 0.
        purpose: purpose of the random numbers.
        counters: non-negative integers that locate the position in the training (epoch, rank, ...).
    """
    entropy = [base_seed, int(purpose), *counters]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


@contextlib.contextmanager
def seeded_cpu_rng(seed: int) -> Iterator[None]:
    """Seed the CPU generators of Python, numpy and torch for a block, then restore them.

    CUDA generators are left alone: the block is meant for data loading.

    Args:
        seed: in [0, 2**32).
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch_state = torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    # torch.manual_seed would also reseed the CUDA generators, which are not restored below.
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
