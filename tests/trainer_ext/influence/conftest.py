from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.trainer_ext.influence.over_ranks import RankPool


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Tensors here are tiny: a second thread only waits for the first, and for the other test processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pool() -> Iterator[RankPool]:
    """Three processes; a test asks as many of them as it has ranks."""
    started = RankPool(3)
    yield started
    started.close()
