"""Backends by name, imported only when asked for: a local user never imports submitit or httpx."""

from __future__ import annotations

import importlib
import operator
from typing import cast

from orchestrator.backends.base import Backend
from orchestrator.errors import UsageError
from orchestrator.runai_spec import RunaiSpec

BACKENDS = {
    "local": "orchestrator.backends.local:LocalBackend",
    "fake": "orchestrator.backends.fake:FakeBackend",
    "slurm": "orchestrator.backends.slurm.backend:SlurmBackend",
    "runai": "orchestrator.backends.runai.backend:RunaiBackend.of",
}
"""name -> module:what makes it."""


def load(name: str, runai: RunaiSpec | None = None) -> Backend:
    """An instance of the backend of that name.

    Args:
        runai: the sweep file's section for Run:ai, the only backend that has one; None: what its defaults are.

    Raises:
        UsageError: there is no such backend.
        EnvironmentProblem: it lacks something that neither the sweep file nor the environment says.
    """
    if name not in BACKENDS:
        raise UsageError(f"unknown backend {name!r}; known here: {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    make = operator.attrgetter(attribute)(importlib.import_module(module))
    return cast(Backend, make(runai or RunaiSpec()) if name == "runai" else make())
