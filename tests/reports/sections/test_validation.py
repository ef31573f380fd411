"""Checks name the files and lines that they stand on."""

from __future__ import annotations

import math

import pytest

from reports.report import render
from reports.snapshot import AttemptSnapshot, GitState, NpzSnapshot, PointSnapshot, SweepSnapshot
from tests.reports.reading import rows_below

STEP = {"influence_trace/rows_emitted": 96.0, "actor/grad_norm": 0.05}


def checks(*points: PointSnapshot, **more: object) -> dict[str, tuple[str, str]]:
    snapshot = SweepSnapshot("s", points=points, expected_steps=2, **more)  # type: ignore[arg-type]
    report = render(snapshot, only={"validation"})
    return {row["Check"]: (row["Evidence"], row["Result"]) for row in rows_below(report, "Validation")}


def point(name: str = "a", **changes: object) -> PointSnapshot:
    values = {
        "state": "succeeded",
        "attempts": (AttemptSnapshot(1, verdict="completed"),),
        "metrics": {1: STEP, 2: STEP},
        "step_lines": {1: "metrics.jsonl:1", 2: "metrics.jsonl:3"},
        "folder": f"{name}/1",
        **changes,
    }
    return PointSnapshot(name, name, **values)  # type: ignore[arg-type]


def test_figures_name_the_lines_that_hold_them() -> None:
    evidence, result = checks(point())["`rows_emitted > 0` all steps"]
    assert evidence == "96 across all jobs (`influence_trace/rows_emitted`; `a/1/metrics.jsonl:1-3`)"
    assert result == "Pass"


def test_figures_out_of_a_log_name_its_lines() -> None:
    found = checks(point(step_lines={1: "train.log:812", 2: "train.log:940"}))
    assert "`a/1/train.log:812-940`" in found["2 steps complete"][0]


def test_steps_of_several_files_name_each() -> None:
    found = checks(point(step_lines={1: "train.log:812", 2: "metrics.jsonl:1"}))
    assert "`a/1/train.log:812`, `a/1/metrics.jsonl:1`" in found["2 steps complete"][0]


def test_of_many_jobs_the_first_places_are_named_and_the_others_counted() -> None:
    found = checks(*(point(name) for name in "abcd"))
    assert found["2 steps complete"][0].endswith("`a/1/metrics.jsonl:1-3`, `b/1/metrics.jsonl:1-3` and 2 more")


def test_a_cuda_error_that_a_job_outlived_is_shown_with_its_line() -> None:
    evidence, result = checks(point(errors=("console.log:817: CUDA error: device-side assert",)))[
        "No CUDA errors / NaN"
    ]
    assert "a/1/console.log:817: CUDA error: device-side assert" in evidence
    assert result == "**Fail**"


def test_a_clean_log_says_how_much_was_searched() -> None:
    evidence, _ = checks(point(log_lines=1_234))["No CUDA errors / NaN"]
    assert "logs clean (1,234 lines; `a/1/console.log`)" in evidence


def test_a_log_with_another_error_is_not_called_clean() -> None:
    evidence, result = checks(point(log_lines=9, errors=("console.log:7: KeyError: 'a'",)))["No CUDA errors / NaN"]
    assert evidence.startswith("no CUDA error in the logs (9 lines")
    assert result == "Pass"


def test_metrics_are_called_finite_only_where_all_are() -> None:
    odd = {**STEP, "critic/correlation": math.nan}
    assert "; metrics finite" in checks(point())["No CUDA errors / NaN"][0]
    assert "; metrics of the actor and the trace finite" in checks(point(metrics={1: odd}))["No CUDA errors / NaN"][0]


@pytest.mark.parametrize(("mean", "std"), [(0.0, math.inf), (math.inf, math.inf), (math.nan, 1.0), (0.0, 0.0)])
def test_scores_without_a_finite_spread_are_not_sane(mean: float, std: float) -> None:
    found = checks(point(npz=(NpzSnapshot("influence/s1.npz", 1, mean=mean, std=std),)))
    assert found["Score distribution sane"][1] == "**Fail**"


def test_a_line_of_a_log_is_no_markdown() -> None:
    bad = point(errors=("console.log:7: CUDA error in __init__ [x](http://example.org)",))
    assert r"\_\_init\_\_ \[x\](http://example.org)" in checks(bad)["No CUDA errors / NaN"][0]


def test_recovery_from_memory_names_the_line_that_ran_out() -> None:
    first = AttemptSnapshot(
        1, "h100", "judged", "gpu_oom", evidence=("steps: 0", "console.log:5: torch.OutOfMemoryError"), folder="a/1"
    )
    found = checks(point(attempts=(first, AttemptSnapshot(2, "h200", verdict="completed"))))
    assert found["Out of memory, then recovered"] == (
        "`a`: gpu_oom on h100, then completed on h200; a/1/console.log:5: torch.OutOfMemoryError",
        "Pass",
    )


def test_files_are_given_with_their_sizes() -> None:
    files = (
        NpzSnapshot("influence/s1.npz", 1, bytes=29_000_000, mean=0.0, std=1.0),
        NpzSnapshot("s2.npz", 2, bytes=27_000_000),
    )
    evidence, _ = checks(point(npz=files), expected_npz=2)["NPZ intact"]
    assert evidence == "2 files of 1 job read without pickle, 27.0 to 29.0 MB; `a/1/influence/s1.npz`, `a/1/s2.npz`"


def test_code_that_nobody_else_can_have_is_a_failed_check() -> None:
    git = GitState("0123456789abcdef", remote="origin", pushed=False)
    assert checks(point(), git=git)["Code pushed to remote"] == (
        "commit `0123456789` was not seen on `origin`",
        "**Fail**",
    )
