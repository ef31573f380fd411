"""Makes the real logs of the corpus: `python -m tests.triage.provoke NAME...` runs failures and keeps what they print last.

Each failure is a small job that dies of the real thing: the real allocator, the real Ray, the real kernel. The
log is what came out, but for this machine's paths, names and addresses, and cut to its last lines. Some need root (a small
tmpfs, a control group), some a GPU; those say so and are left out elsewhere.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.triage.jobs import GPU, JOBS, WRAPPED, Job
from trainer_ext.records import ATTEMPT, CLAIM, AttemptSpec

CORPUS = Path(__file__).parent / "corpus"
TIMEOUT_S = 300
CGROUP = Path("/sys/fs/cgroup/memory/provoke")


def main(names: list[str]) -> int:
    for name in names or sorted({**JOBS, **WRAPPED}):
        if name in WRAPPED:
            print(f"{name}: {wrap(name, WRAPPED[name])}")
            continue
        log = provoke({**JOBS, **GPU}[name])
        if log is None:
            print(f"{name}: this machine cannot")
            continue
        (CORPUS / f"{name}.log").write_bytes(log)
        print(f"{name}: {log.count(bytes([10]))} lines")
    return 0


def provoke(job: Job) -> bytes | None:
    """The end of a job's output, or None where it cannot run."""
    if job.needs_root and os.getuid() != 0:
        return None
    with tempfile.TemporaryDirectory(prefix="job.") as folder:
        here = Path(folder)
        (here / "job.py").write_text(job.code)
        with _small_disk(here, job.tmpfs_kib), _control_group(job.cgroup_bytes) as join:
            words = [word.format(python=sys.executable) for word in job.command]
            done = subprocess.run(
                [*join, *words],
                cwd=here,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", **job.env},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S,
                check=False,
                preexec_fn=lambda: [resource.setrlimit(which, (most, most)) for which, most in job.limits.items()],
            )
        print(f"  exit status {done.returncode}")
        return anonymous(b"\n".join(done.stdout.split(b"\n")[-job.lines - 1 :]), here)


def wrap(name: str, job: Job) -> str:
    """Run a job under the wrapper and keep its attempt folder; says how the wrapper ended."""
    if job.needs_root and os.getuid() != 0:
        return "this machine cannot"
    with tempfile.TemporaryDirectory(prefix="job.") as temporary:
        here = Path(temporary) / name
        here.mkdir()
        (here / "job.py").write_text(job.code)
        command = [word.format(python=sys.executable) for word in job.command]
        spec = AttemptSpec(
            token="token",
            sweep="corpus",
            point="p",
            point_hash="h",
            attempt=1,
            job_name=f"corpus-{name}",
            command=command,
            expected_steps=2,
            npz_glob="influence/*.npz",
            expected_npz=2,
            **job.more,  # type: ignore[arg-type]
        )
        (here / ATTEMPT).write_text(spec.to_json())
        with _control_group(job.cgroup_bytes) as join:
            wrapper = [sys.executable, "-m", "orchestrator.job", str(here)]
            done = subprocess.run([*join, *wrapper], timeout=TIMEOUT_S, check=False, capture_output=True)
        (here / "job.py").unlink()
        (here / CLAIM).unlink(missing_ok=True)
        shutil.rmtree(CORPUS / name, ignore_errors=True)
        shutil.copytree(here, CORPUS / name)
    for file in (CORPUS / name).glob("*.*"):
        file.write_bytes(anonymous(file.read_bytes(), here))
    return f"wrapper ended with {done.returncode}"


def anonymous(log: bytes, folder: Path) -> bytes:
    """The log without this machine in it."""
    named: Mapping[str, str] = {
        str(Path(sys.prefix)): "/opt/venv",
        str(Path(sys.base_prefix)): "/usr",
        str(folder): "/job",
        str(Path(__file__).parents[2]): "/repo",
    }
    for here, there in named.items():
        log = re.sub(rb"(?<![\w.])" + re.escape(here.encode()) + rb"(?![\w])", there.encode(), log)
    return re.sub(rb"\b192\.0\.2\.\d+\b|\b127\.0\.0\.1\b|\blocalhost\b", b"10.0.0.7", log)


@contextmanager
def _small_disk(folder: Path, kib: int | None) -> Iterator[None]:
    """A disk of some KiB at `disk/`."""
    if kib is None:
        yield
        return
    (folder / "disk").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder / "disk"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder / "disk"], check=True)


@contextmanager
def _control_group(size: int | None) -> Iterator[list[str]]:
    """Words in front of a command that put it into a control group (version 1) with so much memory."""
    if size is None:
        yield []
        return
    CGROUP.mkdir()
    (CGROUP / "memory.limit_in_bytes").write_text(str(size))
    try:
        yield ["sh", "-c", f'echo $$ > {CGROUP}/cgroup.procs; "$@"; echo "exit $?"; dmesg | tail -n 3', "sh"]
    finally:
        (Path("/sys/fs/cgroup/memory") / "cgroup.procs").write_text(str(os.getpid()))
        CGROUP.rmdir()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
