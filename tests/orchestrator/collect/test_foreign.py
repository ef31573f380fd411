"""Runs of other people, and the stories of the reports that were written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchestrator.collect.foreign import collect_folder
from orchestrator.errors import UsageError
from orchestrator.model import Verdict
from orchestrator.triage.anomalies import find_anomalies
from orchestrator.triage.evidence import Evidence
from orchestrator.triage.verdict import Judgement, judge
from trainer_ext.records import AttemptSpec

H100_MIB, H200_MIB = 81_559, 143_771
RAY = "\x1b[36m(TaskRunner pid=21194)\x1b[0m "
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.38 GiB. GPU 0 has a total capacity of 79.11 GiB of which "
    "640.00 MiB is free. If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=..."
)


def step_line(step: int, peak_gib: float = 60.0, **more: float) -> str:
    metrics = {
        "influence_trace/rows_emitted": 96 if step == 1 else 80,
        "actor/grad_norm": 0.054,
        "timing_s/influence_hessian_solve": 31.1,
        "perf/max_memory_allocated_gb": peak_gib,
        **{name.replace("__", "/"): value for name, value in more.items()},
    }
    return RAY + f"step:{step} - " + " - ".join(f"{name}:np.float64({value!r})" for name, value in metrics.items())


def write_run(folder: Path, *lines: str, npz_steps: tuple[int, ...] = (1, 2), describe: str | None = None) -> Path:
    (folder / "out" / "influence").mkdir(parents=True)
    (folder / "train.log").write_text("\n".join(lines) + "\n")
    scores = np.array([[0.5, np.nan], [-1.5, 2.0]], np.float16)
    for step in npz_steps:
        np.savez(folder / "out" / "influence" / f"step_{step:06d}.npz", scores=scores)
    if describe is not None:
        (folder / "describe.txt").write_text(f"Name: infl\nStatus: {describe}\nNode Pool: h200\n")
    return folder


def verdict_of(folder: Path, card_mib: int | None = None) -> tuple[Evidence, Judgement, list[str]]:
    evidence = collect_folder(folder, card_mib=card_mib)
    judgement = judge(evidence)
    return evidence, judgement, [anomaly.code for anomaly in find_anomalies(evidence, judgement.verdict)]


def test_error_though_both_steps_are_done_is_completed(tmp_path: Path) -> None:
    log = ("Total training steps: 2", step_line(1, 170.0), step_line(2, 165.0), "ray shutdown failed")
    evidence, judgement, codes = verdict_of(write_run(tmp_path, *log, describe="Error"), H200_MIB)
    assert judgement.verdict is Verdict.COMPLETED
    assert codes == ["memory_metric_unreliable", "nonzero_exit_after_completion"]
    assert (evidence.expected_steps, evidence.steps) == (2, (1, 2))


def test_so_it_is_where_the_log_does_not_say_how_many_steps_were_meant(tmp_path: Path) -> None:
    _, judgement, codes = verdict_of(write_run(tmp_path, step_line(1), step_line(2), describe="Error"))
    assert judgement.verdict is Verdict.COMPLETED
    assert codes == ["nonzero_exit_after_completion"]


@pytest.mark.parametrize("peak", [141.1, 156.5, 170.0])
def test_more_memory_than_the_card_has_is_no_measurement(tmp_path: Path, peak: float) -> None:
    folder = write_run(tmp_path, step_line(1, peak), step_line(2), describe="Succeeded")
    evidence, judgement, codes = verdict_of(folder, H200_MIB)
    assert judgement.verdict is Verdict.COMPLETED
    assert codes == ["memory_metric_unreliable"]
    (anomaly,) = find_anomalies(evidence)
    assert f"{peak:.1f} GiB" in anomaly.message
    assert "the card has 140.4 GiB" in anomaly.message


def test_timings_that_are_all_zero_are_flagged(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path, step_line(1, timing_s__influence_hessian_solve=0.0), describe="Succeeded", npz_steps=(1,)
    )
    assert verdict_of(folder)[2] == ["timing_all_zero"]


def test_the_large_single_group_runs_out_of_memory_on_the_smaller_card(tmp_path: Path) -> None:
    log = (
        "'total_training_steps': 1,",
        RAY + "Traceback (most recent call last):",
        RAY + '  File "/verl/workers/actor/influence_trace.py", line 512, in _compute_kernel_solve',
        RAY + OOM,
        "[rank3]:[E221 ProcessGroupNCCL.cpp:633] [Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9)",
        "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.",
    )
    _, judgement, codes = verdict_of(write_run(tmp_path, *log, npz_steps=(), describe="Error"), H100_MIB)
    assert judgement.verdict is Verdict.GPU_OOM
    assert any(fact.startswith("train.log:4: ") for fact in judgement.evidence)
    assert codes == ["incomplete_steps"]


def test_a_restarted_job_with_all_its_outputs_is_completed(tmp_path: Path) -> None:
    log = ("Total training steps: 2", step_line(1), step_line(2), step_line(1, 61.0))
    _, judgement, codes = verdict_of(write_run(tmp_path, *log, describe="Running"))
    assert judgement.verdict is Verdict.COMPLETED
    assert codes == ["restarted_after_completion"]


def test_an_actors_death_alone_is_no_completion_and_no_cause(tmp_path: Path) -> None:
    died = "(raylet) A worker died or was killed while executing a task by an unexpected system error."
    _, judgement, _ = verdict_of(write_run(tmp_path, step_line(1), died, npz_steps=(1,)))
    assert judgement.verdict is Verdict.UNKNOWN


def test_a_step_without_its_file_is_missing_output(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "Total training steps: 2", step_line(1), step_line(2), npz_steps=(1,))
    _, judgement, codes = verdict_of(folder)
    assert judgement.verdict is Verdict.MISSING_OUTPUT
    assert codes == ["missing_npz"]


def test_a_damaged_file_is_missing_output(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "Total training steps: 2", step_line(1), step_line(2), describe="Succeeded")
    path = folder / "out/influence/step_000002.npz"
    path.write_bytes(path.read_bytes()[:100])
    _, judgement, codes = verdict_of(folder)
    assert judgement.verdict is Verdict.MISSING_OUTPUT
    assert codes == ["corrupt_npz"]


def test_sacct_says_what_the_log_cannot(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "Total training steps: 2", step_line(1), npz_steps=(1,))
    (folder / "sacct.txt").write_text(
        "JobID|State|ExitCode|DerivedExitCode\n9|FAILED|1:0|0:125\n9.0|OUT_OF_MEMORY|0:125|\n"
    )
    assert verdict_of(folder)[1].verdict is Verdict.HOST_OOM


def test_several_logs_are_read_as_one_and_facts_name_their_file(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "Total training steps: 2", step_line(1), npz_steps=(1,))
    (folder / "logs").mkdir()
    (folder / "logs" / "worker-3.err").write_text("loading\n" + OOM + "\n")
    evidence, judgement, _ = verdict_of(folder)
    assert judgement.verdict is Verdict.GPU_OOM
    assert evidence.signatures[0].file == "logs/worker-3.err"


def test_a_log_alone_is_a_run(tmp_path: Path) -> None:
    log = tmp_path / "saved.txt"
    log.write_text("Total training steps: 1\n" + step_line(1) + "\n")
    assert verdict_of(log)[1].verdict is Verdict.COMPLETED


def test_metrics_alone_are_a_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "data": {"actor/loss": 1}}\n')
    assert collect_folder(tmp_path).steps == (1,)


def test_a_folder_of_ours_is_read_as_such(tmp_path: Path) -> None:
    spec = AttemptSpec(token="t", sweep="s", point="p", point_hash="h", attempt=1, job_name="j", expected_steps=4)
    (tmp_path / "attempt.json").write_text(spec.to_json())
    evidence = collect_folder(tmp_path, card_mib=H100_MIB)
    assert evidence.expected_steps == 4
    assert evidence.card_bytes == H100_MIB * 1024**2


@pytest.mark.parametrize(("name", "message"), [("none", "does not exist"), ("empty", "holds no run")])
def test_a_place_without_a_run_is_the_users_mistake(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.md").write_text("nothing")
    with pytest.raises(UsageError, match=message):
        collect_folder(tmp_path / name)
