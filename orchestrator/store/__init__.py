"""The durable state: sweeps, points, attempts and every change of state, in SQLite (or another database by URL)."""

from orchestrator.store.db import Store
from orchestrator.store.reading import open_reader

__all__ = ["Store", "open_reader"]
