from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch

from trainer_ext.bench.synthetic import Batch, make_batch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Tensors here are tiny: a second thread only waits for the first, and for the other test processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def clock() -> Callable[[], float]:
    """A clock on which every reading is one second later than the one before."""
    readings = itertools.count()
    return lambda: float(next(readings))


@pytest.fixture(scope="session")
def batch() -> Batch:
    return make_batch(300, prompts=3, per_prompt=6, seed=1, device=CPU)
