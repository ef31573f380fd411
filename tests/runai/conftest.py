"""A control plane for a test, which must not have lied by the end of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runai.knobs import Knobs
from tests.runai.plane import ControlPlane
from tests.runai.server import Server


@pytest.fixture
def knobs() -> Knobs:
    """Overridden by tests of other settings."""
    return Knobs()


@pytest.fixture
def server(tmp_path: Path, knobs: Knobs) -> Iterator[Server]:
    with Server(ControlPlane(tmp_path / "containers", knobs)) as server:
        yield server
    assert server.api.dishonest == []
