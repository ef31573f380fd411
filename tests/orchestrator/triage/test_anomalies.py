"""Each anomaly: when it is raised, when not, and that it says the numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model import Verdict
from orchestrator.triage import anomalies
from orchestrator.triage.anomalies import (
    Earlier,
    Lineage,
    find_anomalies,
    oom_recovered,
    step_seconds,
    throughput_outlier,
)
from orchestrator.triage.evidence import GIB, MIB, Evidence, NpzFacts

H200 = 143_771 * MIB
FILES = tuple(NpzFacts(f"influence/step_{step:06d}.npz", step, responses=16, valid=244) for step in (1, 2))


def run(**changes: Any) -> Evidence:
    """A healthy run of two steps."""
    metrics = {
        step: {
            "influence_trace/rows_emitted": 96.0,
            "influence_trace/residual_max": 2e-5,
            "timing_s/influence_hessian_solve": 6.6,
            "timing_s/influence_token_scoring": 0.0,
            "timing_s/step": 700.0,
            "actor/grad_norm": 0.054,
            "actor/perf/max_memory_allocated_gb": 91.0,
        }
        for step in (1, 2)
    }
    fields: dict[str, Any] = {
        "ended": True,
        "outcome_seen": True,
        "exit_code": 0,
        "expected_steps": 2,
        "steps": (1, 2),
        "expected_npz": 2,
        "npz": FILES,
        "metrics": metrics,
        "card_bytes": H200,
        "gpu_peak_bytes": 100 * GIB,
        "log_lines": 900,
        **changes,
    }
    return Evidence(**fields)


def with_metrics(step: int, **changes: float) -> Evidence:
    healthy = run()
    metrics = {number: dict(values) for number, values in healthy.metrics.items()}
    metrics[step].update({name.replace("__", "/"): value for name, value in changes.items()})
    return run(metrics=metrics)


def only(evidence: Evidence) -> tuple[str, str]:
    (found,) = find_anomalies(evidence, Verdict.COMPLETED)
    return found.code, found.message


def test_a_healthy_run_has_none() -> None:
    assert find_anomalies(run(), Verdict.COMPLETED) == ()
    assert find_anomalies(Evidence(ended=False)) == ()


@pytest.mark.parametrize("name", ["perf__max_memory_allocated_gb", "actor__perf__max_memory_reserved_gb"])
def test_torch_above_the_card_is_unreliable_in_binary_units(name: str) -> None:
    code, message = only(with_metrics(2, **{name: 156.5}))
    assert code == "memory_metric_unreliable"
    for part in ("156.5 GiB", "step 2", "the card has 140.4 GiB", "NVML saw 100.0 GiB at most"):
        assert part in message
    within = run(metrics={1: {"perf/max_memory_allocated_gb": 140.3}}, gpu_peak_bytes=None)
    above = run(metrics={1: {"perf/max_memory_allocated_gb": 140.5}}, gpu_peak_bytes=None)
    assert anomalies.memory_metric_unreliable(within) is None
    assert anomalies.memory_metric_unreliable(above) is not None


def test_torch_above_what_nvml_saw_is_unreliable_but_for_a_short_peak() -> None:
    assert anomalies.memory_metric_unreliable(run(gpu_peak_bytes=90 * GIB)) is None
    assert anomalies.memory_metric_unreliable(run(gpu_peak_bytes=80 * GIB)) is not None
    assert anomalies.memory_metric_unreliable(run(gpu_peak_bytes=None, card_bytes=None)) is None


def test_the_jobs_own_samples_of_the_device_count_as_nvmls_do() -> None:
    metrics = {1: {"perf/max_memory_allocated_gb": 130.0, "perf/physical_memory_peak_gb": 91.0}}
    found = anomalies.memory_metric_unreliable(run(metrics=metrics, gpu_peak_bytes=None))
    assert found is not None
    assert "the job itself saw 91.0 GiB at most" in found.message
    assert anomalies.memory_metric_unreliable(run(metrics=metrics, gpu_peak_bytes=129 * GIB)) is None


def test_a_job_without_a_gpu_has_no_torch_figure_to_doubt() -> None:
    metrics = {1: {"actor/perf/max_memory_allocated_gb": 9.0, "perf/physical_memory_peak_gb": 5.0}}
    assert anomalies.memory_metric_unreliable(run(metrics=metrics, gpu_peak_bytes=None, card_bytes=None)) is None


@pytest.mark.parametrize("name", ["perf__cpu_memory_used_gb", "actor__perf__cpu_memory_used_gb"])
def test_verls_host_figure_above_the_control_groups_limit_is_the_whole_nodes(name: str) -> None:
    evidence = with_metrics(1, **{name: 767.0})
    assert anomalies.memory_metric_unreliable(evidence) is None, "without a limit nothing can be above it"
    code, message = only(replace(evidence, host_limit_bytes=512 * GIB, host_peak_bytes=436 * GIB))
    assert code == "memory_metric_unreliable"
    for part in ("767.0 GiB", "step 1", "control group allows 512.0 GiB", "whole node"):
        assert part in message
    assert anomalies.memory_metric_unreliable(replace(evidence, host_limit_bytes=800 * GIB)) is None


def test_more_host_memory_seen_than_the_control_group_allows_is_unreliable() -> None:
    code, message = only(run(host_limit_bytes=512 * GIB, host_peak_bytes=600 * GIB))
    assert (code, "600.0 GiB" in message) == ("memory_metric_unreliable", True)


def test_both_figures_may_be_unreliable_at_once() -> None:
    evidence = with_metrics(2, perf__max_memory_allocated_gb=170.0, perf__cpu_memory_used_gb=767.0)
    _, message = only(replace(evidence, host_limit_bytes=512 * GIB))
    assert "170.0 GiB" in message
    assert "767.0 GiB" in message


def test_a_run_that_is_far_slower_than_its_peers_is_flagged() -> None:
    found = find_anomalies(run(), Verdict.COMPLETED, Lineage(peer_step_seconds=(300.0, 305.0, 310.0, 302.0)))
    assert [one.code for one in found] == ["throughput_outlier"]


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ({"exit_code": 1}, "exit code 1"),
        ({"exit_code": None, "signal": 6}, "signal 6"),
        ({"exit_code": None, "scheduler_reason": "FAILED"}, "scheduler status FAILED"),
    ],
)
def test_a_bad_end_after_all_work_is_flagged(end: dict[str, Any], said: str) -> None:
    code, message = only(run(**end))
    assert code == "nonzero_exit_after_completion"
    assert said in message


def test_a_bad_end_without_all_work_is_a_verdict_and_no_flag() -> None:
    assert anomalies.nonzero_exit_after_completion(run(exit_code=1, steps=(1,))) is None


def test_nan_scores_are_counted_by_file() -> None:
    bad = (FILES[0], NpzFacts("influence/step_000002.npz", 2, valid=6_129_414, nan_in_valid=1234))
    assert only(run(npz=bad)) == (
        "nan_scores",
        "NaN where a score should be: influence/step_000002.npz: 1,234 of 6,129,414",
    )


def test_no_rows_by_the_metric_or_by_the_file() -> None:
    code, message = only(with_metrics(2, influence_trace__rows_emitted=0.0))
    assert (code, "step 2" in message) == ("no_rows_emitted", True)
    empty = (FILES[0], NpzFacts("influence/step_000002.npz", 2))
    code, message = only(run(npz=empty))
    assert (code, "step_000002" in message) == ("no_rows_emitted", True)


def test_timings_that_are_all_zero_although_rows_came_out() -> None:
    code, message = only(with_metrics(1, timing_s__influence_hessian_solve=0.0))
    assert code == "timing_all_zero"
    assert "all 2 timings" in message
    assert "step 1" in message


def test_zero_timings_without_rows_are_no_second_flag() -> None:
    metrics = {1: {"influence_trace/rows_emitted": 0.0, "timing_s/influence_hessian_solve": 0.0}}
    assert anomalies.timing_all_zero(run(metrics=metrics, npz=())) is None


def test_missing_files_are_counted_or_inferred_from_the_steps() -> None:
    assert only(run(npz=FILES[:1])) == ("missing_npz", "1 of 2 score files are there")
    assert only(run(npz=FILES[:1], expected_npz=None))[0] == "missing_npz"
    assert find_anomalies(run(npz=(), expected_npz=None)) == ()


def test_a_corrupt_file_says_why() -> None:
    bad = (FILES[0], NpzFacts("influence/step_000002.npz", 2, error="BadZipFile: File is not a zip file"))
    assert only(run(npz=bad)) == ("corrupt_npz", "influence/step_000002.npz: BadZipFile: File is not a zip file")


def test_steps_that_are_missing_are_named() -> None:
    assert only(run(steps=(1,))) == ("incomplete_steps", "1 of 2 steps logged; step 2 missing")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_norm_that_is_no_number(value: float) -> None:
    assert only(with_metrics(2, actor__grad_norm=value)) == (
        "grad_norm_nonfinite",
        f"actor/grad_norm is {value} in step 2",
    )


def test_a_restart_counts_once_all_steps_were_done() -> None:
    assert only(run(restarted=True))[0] == "restarted_after_completion"
    assert anomalies.restarted_after_completion(run(restarted=True, steps=(1,))) is None


@pytest.mark.parametrize(("value", "flagged"), [(9e-4, False), (2e-3, True), (math.nan, True)])
def test_a_high_residual(value: float, flagged: bool) -> None:
    found = anomalies.solver_residual_high(with_metrics(1, influence_trace__residual_max=value))
    assert (found is not None) is flagged


def test_a_truncated_log() -> None:
    assert only(run(log_truncated=True)) == ("log_truncated", "the log ends in the middle of line 900")


@pytest.mark.parametrize(
    ("verdict", "earlier", "flagged"),
    [
        (Verdict.COMPLETED, [Verdict.GPU_OOM], True),
        (Verdict.COMPLETED, [Verdict.HOST_OOM, Verdict.PREEMPTED], True),
        (Verdict.COMPLETED, [Verdict.PREEMPTED], False),
        (Verdict.COMPLETED, [], False),
        (Verdict.GPU_OOM, [Verdict.GPU_OOM], False),
        (None, [Verdict.GPU_OOM], False),
    ],
)
def test_a_recovery_needs_an_earlier_failure_and_completion(
    verdict: Verdict | None, earlier: list[Verdict], flagged: bool
) -> None:
    lineage = Lineage(tuple(map(Earlier, earlier)))
    assert (oom_recovered(verdict, lineage) is not None) is flagged
    assert ("oom_recovered" in [one.code for one in find_anomalies(run(), verdict, lineage)]) is flagged


def test_a_recovery_names_the_pools_and_how_often() -> None:
    tried = (Earlier(Verdict.HOST_OOM, "h100"), Earlier(Verdict.HOST_OOM, "h100"), Earlier(Verdict.GPU_OOM, "h100"))
    found = oom_recovered(Verdict.COMPLETED, Lineage(tried, "h200"))
    assert found is not None
    assert found.message == "ran out of host memory on h100 2 times and GPU memory on h100, then completed on h200"


def test_seconds_a_step_are_the_median() -> None:
    assert step_seconds(run()) == 700.0
    assert step_seconds(run(metrics={})) is None
    assert step_seconds(run(metrics={1: {"timing_s/step": math.nan}})) is None


@pytest.mark.parametrize(
    ("seconds", "peers", "flagged"),
    [
        (1000.0, [600.0, 610.0, 620.0, 605.0], True),
        (300.0, [600.0, 610.0, 620.0, 605.0], True),
        (650.0, [600.0, 610.0, 620.0, 605.0], False),
        (1000.0, [600.0, 610.0, 620.0], False),
        (1000.0, [300.0, 600.0, 900.0, 1200.0], False),
    ],
)
def test_an_outlier_is_far_from_peers_that_agree(seconds: float, peers: list[float], flagged: bool) -> None:
    assert (throughput_outlier(seconds, peers) is not None) is flagged
