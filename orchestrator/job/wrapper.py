"""One attempt from claim to outcome.

read attempt.json -> claim -> prepare commands -> command -> end what is left over -> outcome.json, last of all.

Whatever happens to the commands, the outcome gets written; whatever happens to sampling, the commands go on. The
outcome's presence promises that nothing of the attempt runs any more, so it is written after the last process ended.
"""

from __future__ import annotations

import dataclasses
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.clock import Clock, SystemClock
from orchestrator.job import cgroup, claim, launch, processes
from orchestrator.job.hang import HangLimits, hung
from orchestrator.job.heartbeat import HeartbeatWriter, steps_seen
from orchestrator.job.memory import MemorySampler, TreePss, descendant_pids
from orchestrator.job.node import NodeWriter
from orchestrator.job.outputs import describe_outputs
from orchestrator.job.stacks import find_py_spy, write_stacks
from orchestrator.job.stopping import Limits
from orchestrator.job.supervise import Ended, reap, supervise
from orchestrator.job.ticker import Ticker
from orchestrator.paths import AttemptPaths
from trainer_ext.records import AttemptSpec, Outcome, write_atomic

SAMPLE_INTERVAL_S = 1.0
DESCRIBE_INTERVAL_S = 3600.0
LEFTOVER_GRACE_S = 3.0
"""What a job leaves behind (Ray's daemons after a crash) gets this long between SIGTERM and SIGKILL."""
ENV_GRACE = "ORCHESTRATOR_GRACE_S"
"""Seconds between the SIGTERM and the SIGKILL of the job, where 20 do not suit."""
ENV_NOTICE = "ORCHESTRATOR_NOTICE_S"
"""Seconds between the file `stop-requested` and the SIGTERM; 0 unless whoever starts the wrapper knows that it has them."""


class WrapperError(Exception):
    """The attempt could not be run or recorded."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_attempt(folder: Path, environ: Mapping[str, str] = os.environ, clock: Clock | None = None) -> None:
    """Run the attempt in `folder`, or do nothing where another wrapper has the claim.

    Raises:
        WrapperError: `attempt.json` is unreadable (exit code 2), or the claim or the outcome cannot be written (1).
    """
    clock = clock or SystemClock()
    paths = AttemptPaths(folder)
    spec = read_spec(paths.spec)
    limits = limits_of(spec, environ, time.monotonic())
    try:
        if not claim.take(paths.claim, claim.own_claim(spec.token, clock.now(), claim.node_name(environ))):
            return
    except OSError as error:
        raise WrapperError(f"cannot claim {folder}: {error}", 1) from error
    launch.adopt_orphans()
    outcome = _Attempt(paths, spec, launch.environment(spec, folder, environ), limits, clock).run()
    try:
        write_atomic(paths.outcome, outcome.to_json())
    except OSError as error:
        raise WrapperError(f"cannot write {paths.outcome}: {error}", 1) from error


def read_spec(path: Path) -> AttemptSpec:
    """The attempt to run.

    Raises:
        WrapperError: there is no such file, or it does not say what to run.
    """
    try:
        spec = AttemptSpec.from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WrapperError(f"cannot read {path}: {error}", 2) from error
    if not spec.command:
        raise WrapperError(f"{path}: `command` is empty, there is nothing to run", 2)
    return spec


def limits_of(spec: AttemptSpec, environ: Mapping[str, str], now: float) -> Limits:
    """When the attempt that begins `now` has to end, and how long it may take to do so.

    Raises:
        WrapperError: a variable is no number of seconds.
    """
    end_at = math.inf if spec.time_limit_s is None else now + spec.time_limit_s
    grace_s, notice_s = _seconds(environ, ENV_GRACE, Limits.grace_s), _seconds(environ, ENV_NOTICE, Limits.notice_s)
    return Limits(end_at, grace_s, notice_s)


def _seconds(environ: Mapping[str, str], name: str, otherwise: float) -> float:
    text = environ.get(name)
    try:
        return otherwise if text is None else float(text)
    except ValueError:
        raise WrapperError(f"{name}={text}: expected a number of seconds", 2) from None


@dataclass(frozen=True)
class _Watch:
    """What looks at the commands of an attempt while they run."""

    heartbeat: HeartbeatWriter
    tickers: list[Ticker]
    hung: Callable[[float], str | None]
    """(seconds on a clock that never goes back) -> why the job is taken for dead, or None."""


@dataclass
class _Attempt:
    """The attempt that this process has claimed."""

    paths: AttemptPaths
    spec: AttemptSpec
    environ: Mapping[str, str]
    limits: Limits
    clock: Clock

    def run(self) -> Outcome:
        started_at = self.clock.now()
        group = cgroup.own_cgroup()
        oom_before = _oom_kills(group)
        heartbeat = HeartbeatWriter(self.paths, self.clock, self.spec.expected_steps)
        memory = self._memory_sampler(group, oom_before)
        tickers = [
            Ticker(heartbeat, SAMPLE_INTERVAL_S, "heartbeat"),
            Ticker(memory, SAMPLE_INTERVAL_S, "memory"),
            # by a ticker of its own: a sick driver may block
            Ticker(NodeWriter(self.paths.node, self.environ), DESCRIBE_INTERVAL_S, "node"),
        ]
        watch = _Watch(heartbeat, tickers, self._hang_detection(heartbeat, memory))
        try:
            phase, ended = self._run_commands(watch)
        finally:
            self._end_leftovers()
        heartbeat.phase, heartbeat.child_pid = "finish", None
        with suppress(OSError):
            heartbeat()
        oom_after = _oom_kills(group)
        return Outcome(
            token=self.spec.token,
            exit_code=ended.exit_code,
            signal=ended.signal,
            started_at=started_at,
            ended_at=self.clock.now(),
            phase=phase,
            steps=self._steps(),
            oom_kills=None if oom_before is None or oom_after is None else oom_after - oom_before,
            stop_reason=ended.stop_reason,
            stop_detail=ended.stop_detail,
            first_step_s=heartbeat.steps.first_s,
            step_s=heartbeat.steps.median_s,
            error=ended.error,
            outputs=self._outputs(),
            host=socket.gethostname(),
        )

    def _memory_sampler(self, group: cgroup.Cgroup | None, oom_before: int | None) -> MemorySampler:
        return MemorySampler(
            self.paths.memory,
            group=group,
            oom_kills_before=oom_before or 0,
            visible_devices=self.environ.get("CUDA_VISIBLE_DEVICES"),
            tree_pss=TreePss(descendant_pids),
            clock=self.clock,
        )

    def _run_commands(self, watch: _Watch) -> tuple[str, Ended]:
        """Prepare, then run. The first preparation that does not succeed is the end; its phase is returned with it."""
        at_once = dataclasses.replace(self.limits, notice_s=0.0)  # what prepares knows of no request to stop
        for command in self.spec.prepare:
            ended = self._run_command("prepare", command, at_once, watch)
            if not ended.succeeded:
                return "prepare", ended
        return "run", self._run_command("run", self.spec.command, self.limits, watch)

    def _run_command(self, phase: str, command: list[str], limits: Limits, watch: _Watch) -> Ended:
        try:
            with _appending(self.paths.console) as console:
                child = launch.start(command, folder=self.paths.dir, environ=self.environ, console=console)
        except (OSError, ValueError) as error:
            return Ended(error=f"cannot start {command[0] if command else command!r}: {error}")
        watch.heartbeat.begin_command(phase, child.pid)
        with ExitStack() as sampling:
            for ticker in watch.tickers:
                sampling.enter_context(ticker.running())
            return supervise(child, limits, self._ask, hung=watch.hung, before_ending=self._write_stacks)

    def _hang_detection(self, heartbeat: HeartbeatWriter, memory: MemorySampler) -> Callable[[float], str | None]:
        if self.spec.hang is None:
            return lambda _now: None
        limits = HangLimits.of(self.spec.hang)
        return lambda now: hung(heartbeat.signs(memory.idleness.since(now)), limits, now)

    def _write_stacks(self, why: str) -> None:
        print(f"orchestrator.job: the job hangs: {why}", file=sys.stderr)
        running = processes.descendants(psutil.Process())
        try:
            write_stacks(self.paths.stacks, why, running, py_spy=find_py_spy(self.environ))
        except OSError as error:
            print(f"orchestrator.job: cannot write {self.paths.stacks}: {error}", file=sys.stderr)

    def _ask(self) -> None:
        with suppress(OSError):
            self.paths.stop_requested.touch()

    def _end_leftovers(self) -> None:
        def find() -> list[psutil.Process]:
            reap()
            return processes.descendants(psutil.Process())

        for survivor in processes.end_all(find, grace_s=LEFTOVER_GRACE_S, clock=self.clock):
            print(f"orchestrator.job: process {survivor.pid} survived SIGKILL", file=sys.stderr)
        reap()

    def _steps(self) -> list[int]:
        try:
            return steps_seen(self.paths.metrics)
        except OSError as error:
            print(f"orchestrator.job: cannot read {self.paths.metrics}: {error}", file=sys.stderr)
            return []

    def _outputs(self) -> list[Mapping[str, object]]:
        try:
            files = describe_outputs(self.paths.dir, self.spec.npz_glob)
        except (OSError, ValueError, NotImplementedError) as error:
            print(f"orchestrator.job: cannot describe the outputs: {error}", file=sys.stderr)
            return []
        return [dataclasses.asdict(file) for file in files]


@contextmanager
def _appending(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _oom_kills(group: cgroup.Cgroup | None) -> int | None:
    return cgroup.read(group).oom_kill if group else None
