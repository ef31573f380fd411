"""Asking the backend about one attempt, for the verbs that show what a job is doing."""

from __future__ import annotations

from orchestrator import backends
from orchestrator.backends.base import JobRef, TalkativeBackend
from orchestrator.errors import OrchestratorError
from orchestrator.ledger import AttemptRow
from orchestrator.paths import RootPaths
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.triage.explain import Fact

SILENT = frozenset({"local", "fake", "slurm"})
"""Backends that say all they know when they are polled."""


def talkative(store: Store, sweep: str) -> TalkativeBackend | None:
    """The sweep's backend, where it can be asked about single jobs.

    Raises:
        OrchestratorError: it can be asked, but not from here and now.
    """
    row = store.sweep(sweep)
    if row.backend in SILENT or row.backend not in backends.BACKENDS:
        return None
    backend = backends.load(row.backend, SweepSpec.model_validate(row.spec).runai)
    return backend if isinstance(backend, TalkativeBackend) else None


def job_of(paths: RootPaths, attempt: AttemptRow) -> JobRef | None:
    """None where nothing was submitted yet."""
    if not attempt.handle:
        return None
    folder = paths.attempt(attempt.sweep, attempt.point, attempt.n).dir
    return JobRef(attempt.handle, attempt.job_name, attempt.token, folder)


def scheduler_facts(store: Store, paths: RootPaths, attempt: AttemptRow) -> tuple[Fact, ...]:
    """What the scheduler says about an attempt that is not over, or that ended without an outcome; else nothing."""
    job = job_of(paths, attempt)
    if job is None or (
        not attempt.state.is_live and paths.attempt(attempt.sweep, attempt.point, attempt.n).outcome.exists()
    ):
        return ()
    label = store.sweep(attempt.sweep).backend
    try:
        backend = talkative(store, attempt.sweep)
        lines = backend.explain(job) if backend else ()
    except OrchestratorError as error:
        return (Fact(label, f"cannot be asked now: {error}"),)
    return tuple(Fact(label, line) for line in lines)
