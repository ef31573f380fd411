"""What it costs to get many tiny jobs through Slurm: ours, plain submitit and hydra-submitit-launcher, on one cluster.

    python docs/benchmarks/slurm.py --jobs 100 1000 --record docs/benchmarks/slurm.jsonl

Run it on a login node, or after `make slurm-up`. Every way submits one job array of jobs that do nothing, four at a time, and
waits until it knows that all have ended; each runs in a process of its own, whose CPU time is counted with its children's.
hydra-submitit-launcher is no requirement of ours: it is measured where it is installed. Its submission cannot be told from its
waiting. Seconds: until all were submitted, until all were known to have ended, of the client's CPU, and from the last end to
knowing it. Ours does more in each job: a wrapper samples memory and
writes an outcome; so jobs take longer on a machine that is client and cluster at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CPUS_OF_A_JOB = 8
"""Half of a node of the cluster that `make slurm-up` makes: four jobs run at a time in a pool of two nodes."""
POLL_S = 2.0
WAYS = ("ours", "submitit", "hydra")
COLUMNS = ("way", "jobs", "submit_s", "submit_cpu_s", "done_s", "cpu_s", "noticed_s", "ended_well")
HYDRA_APP = """
import time, pathlib
import hydra

@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(cfg):
    pathlib.Path("ended").write_text(str(time.time()))

main()
"""


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def leave_a_mark(path: str) -> None:
    """The job of plain submitit."""
    Path(path).write_text(str(time.time()))


def ours(n: int, partition: str, folder: Path) -> dict[str, Any]:
    from orchestrator.backends.base import JobRef, JobRequest, JobState
    from orchestrator.backends.slurm.backend import SlurmBackend
    from orchestrator.model import Pool, Resources
    from orchestrator.paths import AttemptPaths
    from trainer_ext.records import AttemptSpec, Outcome

    pool = Pool(partition, options={"partition": partition, "cpus": CPUS_OF_A_JOB})
    requests = []
    for index in range(n):
        attempt, token = folder / str(index), f"bench-{folder.name}-{index}"
        attempt.mkdir()
        identity: dict[str, Any] = {"sweep": "bench", "point": str(index), "point_hash": "", "attempt": 1}
        spec = AttemptSpec(token=token, job_name=f"bench-{index}", command=["true"], **identity)
        AttemptPaths(attempt).spec.write_text(spec.to_json())
        requests.append(JobRequest(f"bench-{index}", token, attempt, pool, Resources(time_s=600)))
    backend = SlurmBackend()
    began, before = time.time(), cpu()
    handles = backend.submit_many(requests)
    submitted, between = time.time(), cpu()
    waiting = {r.token: JobRef(str(handles[r.token]), r.name, r.token, r.attempt_dir) for r in requests}
    while waiting:
        seen = backend.poll(list(waiting.values()))
        ended = {JobState.ENDED, JobState.GONE}
        waiting = {
            token: job
            for token, job in waiting.items()
            if job.handle not in seen or seen[job.handle].state not in ended
        }
        time.sleep(POLL_S if waiting else 0)
    done, after = time.time(), cpu()
    outcomes = [AttemptPaths(request.attempt_dir).outcome for request in requests]
    ends = [Outcome.from_json(path.read_text()).ended_at for path in outcomes if path.exists()]
    return figures(began, submitted, done, before, between, after, ends)


def plain_submitit(n: int, partition: str, folder: Path) -> dict[str, Any]:
    import submitit

    executor = submitit.AutoExecutor(folder, cluster="slurm")
    executor.update_parameters(
        slurm_partition=partition,
        timeout_min=10,
        cpus_per_task=CPUS_OF_A_JOB,
        slurm_array_parallelism=n,
        slurm_use_srun=False,
    )
    began, before = time.time(), cpu()
    jobs = executor.map_array(leave_a_mark, [str(folder / f"{index}.ended") for index in range(n)])
    submitted, between = time.time(), cpu()
    for job in jobs:
        job.result()
    done, after = time.time(), cpu()
    ends = [float(path.read_text()) for path in folder.glob("*.ended")]
    return figures(began, submitted, done, before, between, after, ends)


def hydra(n: int, partition: str, folder: Path) -> dict[str, Any]:
    (folder / "app.py").write_text(HYDRA_APP)
    launcher = {"partition": partition, "timeout_min": 10, "cpus_per_task": CPUS_OF_A_JOB, "array_parallelism": n}
    options = [f"hydra.launcher.{key}={value}" for key, value in launcher.items()]
    command = [sys.executable, "app.py", "-m", "hydra/launcher=submitit_slurm", "hydra.job.chdir=true", *options]
    began, before = time.time(), cpu()
    subprocess.run([*command, f"+i=range(0,{n})"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    done, after = time.time(), cpu()
    ends = [float(path.read_text()) for path in folder.rglob("ended")]
    return {**figures(began, began, done, before, before, after, ends), "submit_s": None, "submit_cpu_s": None}


def figures(
    began: float, submitted: float, done: float, before: float, between: float, after: float, ends: Sequence[float]
) -> dict[str, Any]:
    return {
        "submit_s": round(submitted - began, 2),
        "submit_cpu_s": round(between - before, 2),
        "done_s": round(done - began, 1),
        "cpu_s": round(after - before, 2),
        "noticed_s": round(done - max(ends), 1) if ends else None,
        "ended_well": len(ends),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--partition", default="h100")
    parser.add_argument("--work", type=Path, default=Path.cwd(), help="a folder that the nodes see")
    parser.add_argument("--record", type=Path, help="append a line of JSON for each row")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        way = {"ours": ours, "submitit": plain_submitit, "hydra": hydra}[args.ways[0]]
        print(json.dumps(way(args.jobs[0], args.partition, args.work)))
        return
    print("| " + " | ".join(COLUMNS) + " |\n" + "| --- " * len(COLUMNS) + "|")
    for n in args.jobs:
        for way in args.ways:
            if way == "hydra" and not has_launcher():
                continue
            row = {"way": way, "jobs": n, **measure(way, n, args.partition, args.work)}
            print(
                "| " + " | ".join("" if row[column] is None else str(row[column]) for column in COLUMNS) + " |",
                flush=True,
            )
            if args.record:
                with args.record.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def has_launcher() -> bool:
    plugins = importlib.util.find_spec("hydra_plugins")
    return plugins is not None and importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is not None


def measure(way: str, n: int, partition: str, work: Path) -> dict[str, Any]:
    """One way in a process of its own, so that nothing is imported or counted twice."""
    with tempfile.TemporaryDirectory(dir=work, prefix="slurm-bench-") as folder:
        words = ["--alone", "--ways", way, "--jobs", str(n), "--partition", partition, "--work", folder]
        command = [sys.executable, str(Path(__file__).resolve()), *words]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
