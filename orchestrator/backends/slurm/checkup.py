"""What a sweep will need of the cluster, looked at beforehand: for `doctor`."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.backends.base import Sign
from orchestrator.backends.slurm.cluster import Config, Partition, read_config, read_partitions
from orchestrator.backends.slurm.commands import CommandRunner, CommandTimeout, ask
from orchestrator.clock import Clock
from orchestrator.errors import Unobservable

PATIENCE_S = 60.0
"""How long the trial job may wait for a node and run."""
_LOOK_EVERY_S = 0.5


def look(run: CommandRunner, root: Path, clock: Clock, *, try_a_job: bool) -> Iterator[Sign]:
    """Controller, partitions, accounting, and with a trial job of a second whether a node sees the state folder.

    Args:
        root: the state folder, which the nodes must see under the same path.
        try_a_job: submit that job, on the default partition.
    """
    try:
        config = read_config(run)
    except Unobservable as error:
        yield Sign("Slurm controller", False, f"{error}; is this a login node?")
        return
    yield Sign("Slurm controller", True, _limits(config))
    yield _told("Slurm partitions", lambda: _partitions(read_partitions(run)))
    yield _accounting(run, config)
    if try_a_job:
        yield _folder_on_a_node(run, root, clock)


def _limits(config: Config) -> str:
    return (
        f"Slurm {config.version or '?'}; arrays of up to {config.max_array_size - 1}, {config.max_jobs} jobs in all; "
        f"what ended is remembered for {config.min_job_age_s:.0f} s"
    )


def _told(check: str, found: Callable[[], str]) -> Sign:
    try:
        return Sign(check, True, found())
    except Unobservable as error:
        return Sign(check, False, str(error))


def _partitions(partitions: list[Partition]) -> str:
    def describe(partition: Partition) -> str:
        gpus = f", {partition.gpus} GPUs a node" if partition.gpus else ""
        state = "" if partition.is_up else ", down"
        return f"{partition.name} ({partition.nodes} nodes{gpus}, {partition.time_limit} at most{state})"

    if not partitions:
        raise Unobservable("sinfo shows none that you may use")
    return ", ".join(describe(partition) for partition in partitions)


def _accounting(run: CommandRunner, config: Config) -> Sign:
    if not config.has_accounting:
        return Sign("Slurm accounting", True, "none: why a job ended is known as long as the controller remembers it")
    try:
        ask(
            run,
            ["sacct", "--noheader", "--parsable2", "--allocations", "--format", "JobID", "--starttime", "now-1minutes"],
        )
    except Unobservable as error:
        return Sign("Slurm accounting", False, f"{error}; sweeps go on without it, and notice some ends later")
    return Sign("Slurm accounting", True, "sacct answers")


def _folder_on_a_node(run: CommandRunner, root: Path, clock: Clock) -> Sign:
    check = "state folder on a node"
    trial = root / f".doctor-{secrets.token_hex(4)}"
    script = f"test -w {shlex.quote(str(root))} && hostname > {shlex.quote(str(trial))}"
    command = ["sbatch", "--parsable", "--job-name=doctor", "--time=1", "--output=/dev/null", f"--wrap={script}"]
    try:
        job = ask(run, command).strip().partition(";")[0]
        return _watch(run, job, trial, check, clock)
    except Unobservable as error:
        return Sign(check, False, f"cannot try it with a job: {error}")
    finally:
        trial.unlink(missing_ok=True)


def _watch(run: CommandRunner, job: str, trial: Path, check: str, clock: Clock) -> Sign:
    deadline, state = clock.now() + PATIENCE_S, "PENDING"
    while clock.now() < deadline:
        if trial.exists() and (node := trial.read_text().strip()):
            return Sign(check, True, f"{trial.parent} is written by job {job} on {node} and seen from here")
        state = ask(run, ["squeue", "--noheader", "--states", "all", "--jobs", job, "--format", "%T"]).strip() or state
        if state == "FAILED":
            break
        clock.sleep(_LOOK_EVERY_S)
    if state == "PENDING":
        _end(run, job)
        return Sign(check, True, f"not tried: no node was free for job {job} within {PATIENCE_S:.0f} s")
    where = "choose a --root on storage that the nodes share with this machine"
    return Sign(check, False, f"job {job} ({state}) wrote nothing to {trial.parent} that is seen here; {where}")


def _end(run: CommandRunner, job: str) -> None:
    try:
        run(["scancel", job])
    except CommandTimeout:
        return
