"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.sweeping import Product


@pytest.fixture
def product(tmp_path: Path) -> Product:
    return Product(tmp_path / "runs")
