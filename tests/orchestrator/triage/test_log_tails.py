"""A dozen ends of logs as they look on clusters, each with the verdict that a colleague would give."""

from __future__ import annotations

import io

import pytest

from orchestrator.collect.console import parse_console
from orchestrator.collect.step_lines import training_steps
from orchestrator.model import Verdict
from orchestrator.triage.evidence import Evidence
from orchestrator.triage.verdict import judge

STEP_1 = "\x1b[36m(TaskRunnerV1 pid=7011)\x1b[0m step:1 - actor/grad_norm:0.5 - num_turns/min:np.int32(2)"
COMMON_CAUSES = (
    "Some common causes include: (1) the process was killed by the OOM killer due to high memory usage, (2) ray stop --force "
    "was called, or (3) the worker crashed unexpectedly due to SIGSEGV or another unexpected error."
)
ACTOR_DIED = (
    "\x1b[33m(raylet)\x1b[0m A worker died or was killed while executing a task by an unexpected system error. Worker "
    "exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file. "
    f"{COMMON_CAUSES}"
)
DRIVER = """\
Traceback (most recent call last):
  File "/opt/verl/trainer/main_ppo.py", line 31, in main
    ray.get(runner.run.remote(config))
ray.exceptions.RayTaskError({name}): \x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=7011, ip=10.0.0.7)
  File "/opt/verl/workers/engine_workers.py", line 713, in update_actor
    loss.backward()
{error}"""
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.69 GiB. GPU 3 has a total capacity of 79.11 GiB of which "
    "1.98 GiB is free. If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
)
NCCL = (
    "\x1b[36m(WorkerDict pid=4121)\x1b[0m [rank3]:[E1121 10:04:11.220110239 ProcessGroupNCCL.cpp:633] [Rank 3] Watchdog caught "
    "collective operation timeout: WorkNCCL(SeqNum=4121, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600021 milliseconds"
)
HYDRA = """\
Could not override 'trainer.foo'.
To append to your config use +trainer.foo=1
Key 'foo' is not in struct
    full_key: trainer.foo
    object_type=dict

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace."""
FLASH_ATTN = """\
(WorkerDict pid=4121) WARNING: falling back to sdpa
(WorkerDict pid=4121) Traceback (most recent call last):
(WorkerDict pid=4121)   File "/opt/verl/utils/attention.py", line 9, in probe
(WorkerDict pid=4121)     import flash_attn
(WorkerDict pid=4121) ModuleNotFoundError: No module named 'flash_attn'"""
SEGFAULT = """\
(TaskRunnerV1 pid=7633) *** SIGSEGV received at time=1 on cpu 1 ***
(TaskRunnerV1 pid=7633) Fatal Python error: Segmentation fault"""
HOST_ALLOCATION = (
    "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 4503599627370496 bytes. Error code 12 (Cannot allocate memory)"
)
RAY_MONITOR = (
    "(raylet) 2 Workers (tasks / actors) killed due to memory pressure (OOM), 0 Workers crashed due to other reasons"
)
KV_CACHE = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`."
TIME_LIMIT = "slurmstepd: error: *** JOB 46 ON h100-1 CANCELLED AT 2026-11-21T09:33:02 DUE TO TIME LIMIT ***"
STEP_ENDED = "slurmstepd: error: *** STEP 12.0 ON h100-1 CANCELLED AT 2026-11-21T09:32:01 ***"

TAILS: dict[str, tuple[Verdict, list[str]]] = {
    "gpu oom, quoted by the driver": (Verdict.GPU_OOM, [STEP_1, DRIVER.format(name="OutOfMemoryError", error=OOM)]),
    "gpu oom, then the others time out": (Verdict.GPU_OOM, [STEP_1, OOM, NCCL, ACTOR_DIED, STEP_ENDED]),
    "the others' deaths are printed first": (Verdict.GPU_OOM, [NCCL, ACTOR_DIED, OOM, STEP_1]),
    "gpu oom after a harmless traceback": (Verdict.GPU_OOM, [FLASH_ATTN, STEP_1, OOM]),
    "no room for the KV cache": (Verdict.GPU_OOM, [DRIVER.format(name="ValueError", error=KV_CACHE)]),
    "host allocation fails": (Verdict.HOST_OOM, [STEP_1, DRIVER.format(name="RuntimeError", error=HOST_ALLOCATION)]),
    "Ray's memory monitor kills": (Verdict.HOST_OOM, [STEP_1, RAY_MONITOR, ACTOR_DIED]),
    "Slurm's cgroup kills": (
        Verdict.HOST_OOM,
        [STEP_1, "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=9.0.", ACTOR_DIED],
    ),
    "a link breaks": (Verdict.NODE_FAILURE, [STEP_1, NCCL, ACTOR_DIED]),
    "a card breaks": (
        Verdict.NODE_FAILURE,
        [STEP_1, "RuntimeError: CUDA error: uncorrectable ECC error encountered", NCCL],
    ),
    "the time is over": (
        Verdict.TIME_LIMIT,
        [STEP_1, TIME_LIMIT, DRIVER.format(name="SystemExit", error="SystemExit: 15")],
    ),
    "preempted": (Verdict.PREEMPTED, [STEP_1, TIME_LIMIT.replace("TIME LIMIT", "PREEMPTION"), NCCL]),
    "cancelled by hand": (Verdict.CANCELLED, [STEP_1, TIME_LIMIT.replace(" DUE TO TIME LIMIT", "")]),
    "an exception in the worker": (
        Verdict.CODE_ERROR,
        [STEP_1, DRIVER.format(name="KeyError", error="KeyError: 'temperature'"), ACTOR_DIED],
    ),
    "segmentation fault after the driver's words": (
        Verdict.CODE_ERROR,
        [
            DRIVER.format(name="ActorDiedError", error="ray.exceptions.ActorDiedError: The actor died unexpectedly"),
            SEGFAULT,
        ],
    ),
    "the disk is full": (Verdict.CODE_ERROR, [STEP_1, "OSError: [Errno 28] No space left on device: '/ckpt'"]),
    "a wrong override": (Verdict.CONFIG_ERROR, [HYDRA]),
    "a missing config value": (
        Verdict.CONFIG_ERROR,
        ["Traceback (most recent call last):", "omegaconf.errors.MissingMandatoryValue: Missing mandatory value: need"],
    ),
    "a worker dies and nobody knows why": (Verdict.UNKNOWN, [STEP_1, ACTOR_DIED, "Killed"]),
    "silence": (Verdict.UNKNOWN, [STEP_1]),
    "advice and nothing else": (
        Verdict.UNKNOWN,
        [STEP_1, COMMON_CAUSES, "If reserved but unallocated memory is large try that."],
    ),
}


def evidence_of(lines: list[str]) -> Evidence:
    facts = parse_console(io.BytesIO(("\n".join(lines) + "\n").encode()))
    return Evidence(
        ended=True,
        outcome_seen=True,
        exit_code=1,
        phase="run",
        expected_steps=3,
        steps=training_steps(facts.steps),
        signatures=facts.signatures,
    )


@pytest.mark.parametrize("name", TAILS)
def test_the_end_of_a_log_leads_to_its_verdict(name: str) -> None:
    verdict, lines = TAILS[name]
    judgement = judge(evidence_of(lines))
    assert judgement.verdict is verdict, judgement


@pytest.mark.parametrize("name", TAILS)
def test_carriage_returns_and_time_stamps_change_no_verdict(name: str) -> None:
    verdict, lines = TAILS[name]
    stamped = [f"2026-11-21T10:00:{number % 60:02}Z {line}" for number, line in enumerate("\n".join(lines).split("\n"))]
    assert judge(evidence_of(["\r\n".join(stamped)])).verdict is verdict


def test_a_failure_that_the_job_outlived_by_two_steps_is_not_its_end() -> None:
    steps = [f"step:{step} - actor/grad_norm:0.5" for step in (1, 2)]
    assert judge(evidence_of([OOM, *steps])).verdict is Verdict.UNKNOWN
    assert judge(evidence_of([OOM, *steps, "ValueError: boom", FLASH_ATTN])).verdict is Verdict.CODE_ERROR
