"""Backends by name, imported only when asked for: a local user never imports submitit or httpx."""

from __future__ import annotations

import importlib
from typing import cast

from orchestrator.backends.base import Backend
from orchestrator.errors import UsageError

BACKENDS = {
    "local": "orchestrator.backends.local:LocalBackend",
    "fake": "orchestrator.backends.fake:FakeBackend",
    "slurm": "orchestrator.backends.slurm.backend:SlurmBackend",
}
"""name -> module:class. Run:ai joins here."""


def load(name: str) -> Backend:
    """An instance of the backend of that name."""
    if name not in BACKENDS:
        raise UsageError(f"unknown backend {name!r}; known here: {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    return cast(Backend, getattr(importlib.import_module(module), attribute)())
