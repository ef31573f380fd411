"""Driving one sweep to its end in this process: lock, loop, sinks, report.

Only one process drives a sweep. A second one follows: it shows the same progress, takes over should the first die, and
ends with the same table and report.
"""

from __future__ import annotations

import dataclasses
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.clock import Clock
from orchestrator.errors import EXIT_SOME_FAILED, EXIT_STOPPED, EXIT_SUCCEEDED
from orchestrator.git_changes import read_changes
from orchestrator.git_state import read_git_state
from orchestrator.job.node import installed, packages_hash
from orchestrator.launch import site_of
from orchestrator.ledger import SweepRow, View
from orchestrator.lock import SweepLock
from orchestrator.loop import Drive
from orchestrator.model import PointState
from orchestrator.notify import Announcer, Notifier
from orchestrator.paths import RootPaths
from orchestrator.planning import Planned, Target, find_target, limits, retry_rules
from orchestrator.predicting import predictor
from orchestrator.recording import Recorder, sweep_end, sweep_record
from orchestrator.reporting import write_report
from orchestrator.search.opening import open_search, refuse_changed
from orchestrator.sinks.base import Sink
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store

POLL_LOCAL_S = 0.5
POLL_CLUSTER_S = 10.0

REPORTED_PACKAGES = ("verl", "torch", "transformers", "ray", "hydra-core", "mlflow")

Observer = Callable[[View], None]


@dataclasses.dataclass(frozen=True)
class Session:
    """One sweep in one state folder; effects come in here."""

    sweep: str
    paths: RootPaths
    store: Store
    sink: Sink
    clock: Clock
    notifier: Notifier | None = None

    @property
    def spec(self) -> SweepSpec:
        return SweepSpec.model_validate(self.store.sweep(self.sweep).spec)

    def run(self, observe: Observer, said: Callable[[str], None]) -> View:
        """Drive, or follow whoever drives, until every point is settled; then write the report.

        Args:
            observe: sees every tick.
            said: takes warnings and news, one sentence each.
        """
        with SweepLock(self.paths.lock(self.sweep)) as lock:
            if not lock.held:
                said(f"process {lock.holder()} drives this sweep; following it")
            while not lock.acquire():
                observe(self.store.view(self.sweep))
                self.clock.sleep(POLL_LOCAL_S)
            self.sink.write_sweep(sweep_record(self.store.sweep(self.sweep), self.store.points(self.sweep)))
            announcer = Announcer(self.sweep, self.store, self.notifier, self.spec.notify.when, said)
            view = self._drive(observe, said, announcer)
            self._finish(view, said, announcer)
            return view

    def _drive(self, observe: Observer, said: Callable[[str], None], announcer: Announcer) -> View:
        row, spec = self.store.sweep(self.sweep), self.spec
        target = find_target(spec)
        gpus = spec.resources.gpus if target.pools else 0
        predict = predictor(spec, target, self.paths.root, self.store.measurements())
        with open_search(spec, self.store, self.paths, self.clock, predict, gpus) as search:
            drive = self._loop(row, spec, target, said, announcer)
            drive.search = search
            return drive.run(observe)

    def _loop(
        self, row: SweepRow, spec: SweepSpec, target: Target, said: Callable[[str], None], announcer: Announcer
    ) -> Drive:
        return Drive(
            sweep=self.sweep,
            spec=spec,
            store=self.store,
            backend=target.backend,
            logger=Recorder(self.sink, self.store, self.paths, spec.resources.gpus),
            clock=self.clock,
            site=site_of(target.backend, self.paths),
            limits=limits(spec, target),
            rules=retry_rules(spec),
            pools=target.pools,
            ladder=target.ladder,
            poll_s=POLL_LOCAL_S if row.backend in ("local", "fake") else POLL_CLUSTER_S,
            warn=said,
            announce=announcer.progress,
        )

    def _finish(self, view: View, said: Callable[[str], None], announcer: Announcer) -> None:
        now = self.clock.now()
        ended = [attempt.ended_at for history in view.attempts.values() for attempt in history if attempt.ended_at]
        self.store.finish_sweep(self.sweep, max(ended, default=now), view.stopped)
        report = write_report(self.store, self.paths, self.sweep, said)
        succeeded = exit_code(view) == EXIT_SUCCEEDED
        row, gpus = self.store.sweep(self.sweep), self.spec.resources.gpus
        try:
            self.sink.finish_sweep(sweep_end(self.paths, row, view, gpus, succeeded, max(ended, default=now)))
        except Exception as error:  # the sweep is done and reported: MLflow's trouble is a warning
            said(f"MLflow did not take the end of the sweep: {error}")
        announcer.finished(view, str(report))


def exit_code(view: View) -> int:
    """Of a settled sweep: 0 all succeeded or were pruned, 3 stopped by a budget or the same error, else 1."""
    states = {point.state for point in view.points} - {PointState.SKIPPED}
    if PointState.BLOCKED in states:
        return EXIT_STOPPED
    return EXIT_SUCCEEDED if states <= {PointState.SUCCEEDED, PointState.PRUNED} else EXIT_SOME_FAILED


def register(planned: Planned, store: Store, path: Path, command: Sequence[str], now: float) -> str:
    """Write the sweep and its points into the store, where they wait to be driven; returns the sweep's name."""
    spec = planned.spec
    known = spec.name in store.sweep_names()
    refuse_changed(store.sweep(spec.name).spec if known else None, spec)
    row = SweepRow(
        name=spec.name,
        description=spec.description,
        spec_path=str(path),
        spec=spec.model_dump(mode="json"),
        backend=planned.target.backend.name,
        profile=planned.profile,
        command=shlex.join(command),
        git=code_state(store, spec.name, path.resolve().parent),
        environment=environment(),
        created_at=now,
    )
    store.put_sweep(row, planned.points)
    return spec.name


def code_state(store: Store, sweep: str, folder: Path) -> dict[str, Any] | None:
    """The repository that holds `folder`, and as `changes` what became of it since the sweep before; None outside one."""
    state = read_git_state(folder)
    if state is None:
        return None
    before = _sweep_before(store, sweep)
    changes = read_changes(folder, before.git["commit"], state.commit, before.name) if before and before.git else None
    return {**dataclasses.asdict(state), "changes": dataclasses.asdict(changes) if changes else None}


def _sweep_before(store: Store, sweep: str) -> SweepRow | None:
    """The newest sweep that is older, and ran from a repository."""
    names = store.sweep_names()
    older = names[names.index(sweep) + 1 :] if sweep in names else names
    return next((row for row in map(store.sweep, older) if row.git), None)


def environment() -> dict[str, str]:
    """Versions that decide what a number means, for the report."""
    found = {"python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    packages = installed(sys.path)
    return {**found, "packages": f"{len(packages)} installed, sha256 {packages_hash(packages)}"}
