"""verl is imported once, here: on its way in it warns about engines that are not installed, and warnings are errors in tests.

The environment is that of a CPU job: verl settles on a platform while it is imported, once for the process.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("VERL_PLATFORM", "cpu")
os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")
os.environ.setdefault("VERL_USE_EXTERNAL_MODULES", "trainer_ext.verl_plugin")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import verl.trainer.ppo.v1
    import verl.workers.engine_workers  # noqa: F401


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model; nobody writes to it."""
    from trainer_ext.assets import tiny_qwen2

    folder: Path = tmp_path_factory.mktemp("model")
    tiny_qwen2.make(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def worker(model_folder: Path) -> Iterator[Any]:
    """verl's worker, to be left with the weights that it has: the optimizer is held in every update."""
    from tests.trainer_ext.verl_plugin.engine_world import make_config, worker_of  # imports this file

    with worker_of(make_config(model_folder)) as built:
        yield built
