"""A control plane for a test, which must not have lied by the end of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runai.knobs import Knobs
from tests.runai.plane import ControlPlane
from tests.runai.server import Server

MEMORY = Path("/dev/shm")


@pytest.fixture
def knobs() -> Knobs:
    """Overridden by tests of other settings."""
    return Knobs()


@pytest.fixture
def server(tmp_path: Path, knobs: Knobs) -> Iterator[Server]:
    with Server(ControlPlane(tmp_path / "containers", knobs)) as server:
        yield server
    assert server.api.dishonest == []


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: of a store that is written often, the disk is most of the time."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="runai-test-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder)
