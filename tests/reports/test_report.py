"""The report as a reader sees it: figures of a sweep that was once reported by hand, and a golden file of the whole."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from reports.report import render
from reports.snapshot import AttemptSnapshot, GitState, NpzSnapshot, PointSnapshot, SweepSnapshot

GOLDEN = Path(__file__).parents[1] / "golden" / "report.md"


def rows_of(report: str, section: str) -> dict[str, list[str]]:
    """First cell -> the others, of the table below a heading that begins with `section`."""
    body = report.split(f"### {section}", 1)[1].split("\n### ", 1)[0]
    lines = [line for line in body.splitlines() if line.startswith("| ")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].strip("` "): row[1:] for row in cells}


def with_points(snapshot: SweepSnapshot, **changes: object) -> SweepSnapshot:
    """The sweep with its first point changed."""
    first, *rest = snapshot.points
    return dataclasses.replace(snapshot, points=(dataclasses.replace(first, **changes), *rest))


def test_the_whole_report_is_the_golden_file(factor_sweep: SweepSnapshot) -> None:
    assert render(factor_sweep) == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("job", "figures"),
    [
        ("infl-excl-perprompt", ["`per_prompt`", "`512`", "96/80", "0.054/0.066", "2.3", "0.53", r"141.1\*", "0.139"]),
        ("infl-excl-allsel", ["`all_selected`", "`512`", "96/80", "0.054/0.066", "1.2", "0.29", r"141.1\*", "0.088"]),
        (
            "infl-excl-allsel-f128",
            ["`all_selected`", "`128`", "96/80", "0.054/0.066", "8.5", "6.6", r"156.5\*", "0.180"],
        ),
        (
            "infl-excl-allsel-f64",
            ["`all_selected`", "`64`", "96/80", "0.054/0.066", "34.5", "31.1", r"170.0\*", "0.207"],
        ),
    ],
)
def test_results_show_the_figures_of_the_handwritten_report(
    factor_sweep: SweepSnapshot, job: str, figures: list[str]
) -> None:
    assert rows_of(render(factor_sweep), "Experiment Results")[job][: len(figures)] == figures


def test_score_distribution_shows_the_figures_of_the_handwritten_report(factor_sweep: SweepSnapshot) -> None:
    first_step = [dataclasses.replace(point, npz=point.npz[:1]) for point in factor_sweep.points]
    report = render(dataclasses.replace(factor_sweep, points=tuple(first_step)))
    rows = rows_of(report, "NPZ Score Distribution (step 1, float64)")
    assert [row[-5:] for row in rows.values()] == [
        ["6,129,414", "0.0000042", "0.139", "-96.94", "36.66"],
        ["6,129,414", "-0.0000050", "0.088", "-58.72", "20.27"],
        ["6,129,414", "-0.0000042", "0.180", "-235.38", "33.97"],
        ["6,129,414", "-0.0000140", "0.207", "-265.25", "119.25"],
    ]


def test_a_few_jobs_are_timed_side_by_side_with_the_share_of_the_actors_update(factor_sweep: SweepSnapshot) -> None:
    rows = rows_of(render(factor_sweep), "Timing (step 1)")
    assert rows["hessian_solve` (s)"] == ["0.53", "0.29", "6.6", "31.1"]
    assert rows["update_actor` (s)"] == ["147", "146", "159", "195"]
    assert rows["pop_rows` % of `update_actor"] == ["1.6%", "0.8%", "5.3%", "17.7%"]


def test_more_jobs_have_a_row_each(factor_sweep: SweepSnapshot) -> None:
    more = (*factor_sweep.points, dataclasses.replace(factor_sweep.points[0], id="p5", name="fifth"))
    rows = rows_of(render(dataclasses.replace(factor_sweep, points=more)), "Timing (step 1)")
    assert rows["infl-excl-allsel"][2:8] == ["0.29", "0.59", "1.2", "146", "24.2%", "0.8%"]
    assert rows["infl-excl-allsel-f64"][2:8] == ["31.1", "3.0", "34.5", "195", "90.1%", "17.7%"]


def test_one_job_shows_what_each_phase_is_of_the_pass_and_of_the_update(factor_sweep: SweepSnapshot) -> None:
    seconds = {"grad_staging": 0.055, "hessian_solve": 1.469, "token_scoring": 1.348, "score_aggregation": 0.016}
    seconds |= {"pop_rows": 3.432, "logprob_backward": 76.42}
    timings = {f"timing_s/influence_{name}": value for name, value in seconds.items()}
    timings |= {"timing_s/update_actor": 230.518, "timing_s/step": 713.768}
    alone = with_points(dataclasses.replace(factor_sweep, points=factor_sweep.points[:1]), metrics={1: timings})
    rows = rows_of(render(alone), "Timing (step 1)")
    assert rows["hessian_solve` (s)"] == ["1.469", "42.8%", ""]
    assert rows["other of pop_rows` (s)"] == ["0.544", "15.9%", ""]
    assert rows["pop_rows` (s)"] == ["3.432", "100.0%", "1.5%"]
    assert rows["logprob_backward` (s)"] == ["76.42", "", "33.2%"]
    assert rows["step` (s)"] == ["713.768", "", ""]


def test_a_sampled_peak_stands_in_the_cell_and_torchs_figure_in_the_footnote(factor_sweep: SweepSnapshot) -> None:
    report = render(with_points(factor_sweep, gpu_peak_bytes=118 * 1024**3))
    assert rows_of(report, "Experiment Results")["infl-excl-perprompt"][6] == r"118.0\*"
    assert "`infl-excl-perprompt` 141.1 GiB (the device saw 118.0, the card has 140.4)" in report


def test_of_samples_beside_the_job_and_inside_it_the_larger_is_shown(factor_sweep: SweepSnapshot) -> None:
    metrics = {1: {"perf/physical_memory_peak_gb": 119.0, "perf/host_memory_peak_gb": 436.0}}
    shown = []
    for gpu, host in ((118, 440), (120, None)):
        beside = {"gpu_peak_bytes": gpu * 1024**3, "host_peak_bytes": host and host * 1024**3}
        report = render(with_points(factor_sweep, metrics=metrics, **beside))
        shown.append(rows_of(report, "Experiment Results")["infl-excl-perprompt"])
    assert "119.0" in shown[0]
    assert "440.0" in shown[0]
    assert "120.0" in shown[1]
    assert "436.0" in shown[1]


def test_torchs_figure_carries_no_mark_where_nothing_speaks_against_it(factor_sweep: SweepSnapshot) -> None:
    points = tuple(dataclasses.replace(point, anomalies=()) for point in factor_sweep.points)
    report = render(dataclasses.replace(factor_sweep, points=points))
    assert rows_of(report, "Experiment Results")["infl-excl-perprompt"][6] == "141.1"
    assert r"\*" not in report


def test_older_metric_names_of_verl_are_read(factor_sweep: SweepSnapshot) -> None:
    metrics = {1: {"perf/max_memory_allocated_gb": 91.0}}
    report = render(with_points(factor_sweep, metrics=metrics, anomalies=()))
    assert "91.0" in rows_of(report, "Experiment Results")["infl-excl-perprompt"]


def test_every_check_passes_for_a_sound_sweep(factor_sweep: SweepSnapshot) -> None:
    checks = rows_of(render(factor_sweep), "Validation")
    assert {row[-1] for row in checks.values()} == {"Pass"}
    assert len(checks) == 9


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("All 4 jobs succeeded", {"state": "failed", "verdict": "hang"}),
        ("2 steps complete", {"metrics": {1: {"actor/grad_norm": 0.1}}}),
        ("rows_emitted > 0` all steps", {"metrics": {s: {"influence_trace/rows_emitted": s - 1.0} for s in (1, 2)}}),
        ("grad_norm` finite", {"metrics": {s: {"actor/grad_norm": math.nan} for s in (1, 2)}}),
        ("No CUDA errors / NaN", {"metrics": {s: {"actor/pg_loss": math.inf} for s in (1, 2)}}),
        ("No CUDA errors / NaN", {"npz": (NpzSnapshot("a.npz", 1, valid=9, nan_in_valid=1), NpzSnapshot("b.npz", 2))}),
        ("No CUDA errors / NaN", {"state": "failed", "verdict": "gpu_oom"}),
        ("No CUDA errors / NaN", {"errors": ("console.log:817: CUDA error: an illegal memory access",)}),
        ("Timing metrics non-zero", {"metrics": {s: {"timing_s/influence_pop_rows": 0.0} for s in (1, 2)}}),
        ("Score distribution sane", {"npz": (NpzSnapshot("a.npz", 1, valid=9, mean=0.3, std=0.1),) * 2}),
        ("Score distribution sane", {"npz": (NpzSnapshot("a.npz", 1, valid=9, mean=0.0, std=0.0),) * 2}),
        (
            "NPZ intact",
            {"npz": (NpzSnapshot("influence/step_000001.npz", 1, error="truncated"), NpzSnapshot("b.npz", 2))},
        ),
        ("NPZ intact", {"npz": ()}),
    ],
)
def test_a_check_fails_by_name(factor_sweep: SweepSnapshot, check: str, changes: dict[str, object]) -> None:
    evidence, result = rows_of(render(with_points(factor_sweep, **changes)), "Validation")[check]
    assert result == "**Fail**"
    assert "`infl-excl-perprompt`" in evidence


def test_a_failing_check_names_its_file(factor_sweep: SweepSnapshot) -> None:
    changed = with_points(factor_sweep, metrics={1: {}}, folder="ab12/3")
    assert "1 of 2 in ab12/3/metrics.jsonl" in rows_of(render(changed), "Validation")["2 steps complete"][0]


def test_attempts_appear_only_where_a_point_took_more_than_one(factor_sweep: SweepSnapshot) -> None:
    assert "### Attempts" not in render(factor_sweep)
    tries = (
        AttemptSnapshot(1, "h100", "judged", "gpu_oom", 1, reason="CUDA out of memory", started_at=0, ended_at=200),
        AttemptSnapshot(2, "h200", "judged", "completed", 0, started_at=300, ended_at=4_260, moved="more memory"),
    )
    report = render(with_points(factor_sweep, attempts=tries))
    body = report.split("### Attempts")[1].split("\n### ")[0]
    assert "| `infl-excl-perprompt` | 1 | `h100` | `gpu_oom` | code 1 | CUDA out of memory |  | 3 min 20 s |" in body
    assert "| `infl-excl-perprompt` | 2 | `h200` | `completed` | code 0 |  | more memory | 1 h 06 min |" in body
    assert "| `infl-excl-allsel` | 1 | `h200` | `completed` |" in body, "every try of the sweep"
    assert "1 took more than one attempt" in report
    assert "out of memory before, on a smaller pool: `infl-excl-perprompt`" in report


def test_a_point_that_ran_out_of_memory_and_was_patched_is_not_said_to_have_moved(factor_sweep: SweepSnapshot) -> None:
    tries = (AttemptSnapshot(1, "h200", "judged", "gpu_oom", 1), AttemptSnapshot(2, "h200", "judged", "completed", 0))
    report = render(with_points(factor_sweep, attempts=tries))
    assert "smaller pool" not in report
    assert "out of memory before, in an earlier attempt: `infl-excl-perprompt`" in report


def test_failures_are_told_with_their_evidence(factor_sweep: SweepSnapshot) -> None:
    evidence = ("console.log:812: torch.OutOfMemoryError: CUDA out of memory", "outcome.json: exit code 1")
    report = render(
        with_points(factor_sweep, state="failed", verdict="gpu_oom", reason="top of the ladder", evidence=evidence)
    )
    assert "3 of 4 points succeeded, 1 failed" in report
    notes = report.split("### Notes")[1]
    assert "**`infl-excl-perprompt` failed** after 1 attempt: `gpu_oom`, top of the ladder — `console.log:812:" in notes
    assert "Failed: `gpu_oom`, top of the ladder" in report


def test_long_runs_show_their_first_and_last_step(factor_sweep: SweepSnapshot) -> None:
    metrics = {step: {"influence_trace/rows_emitted": 100.0 + step} for step in range(1, 201)}
    report = render(with_points(factor_sweep, metrics=metrics))
    assert "`rows` (s1/s200)" in report
    results = rows_of(report, "Experiment Results")
    assert results["infl-excl-perprompt"][2] == "101/300"
    assert results["infl-excl-allsel"][2] == "96/missing"


def test_what_is_not_known_is_left_out() -> None:
    report = render(SweepSnapshot(name="empty"))
    assert report == "## empty\n\n| Item | Details |\n| --- | --- |\n| Delivery | 0 of 0 points succeeded. |\n"


def test_a_sweep_without_influence_has_no_empty_columns() -> None:
    point = PointSnapshot(
        "p1", "plain", state="succeeded", attempts=(AttemptSnapshot(1),), metrics={1: {"actor/grad_norm": 1.5}}
    )
    report = render(SweepSnapshot(name="grpo", points=(point,), expected_steps=1))
    header = next(line for line in report.splitlines() if line.startswith("| Job"))
    assert header == "| Job | `grad_norm` (s1) | Status |"
    assert "NPZ" not in report
    assert "rows_emitted" not in report


def test_wall_clock_stands_in_title_and_one_row_only(factor_sweep: SweepSnapshot) -> None:
    later = dataclasses.replace(factor_sweep, created_at=1_790_000_000.0, finished_at=1_790_009_000.0, gpu_hours=20.0)
    before, after = render(factor_sweep).splitlines(), render(later).splitlines()
    differing = [old for old, new in zip(before, after, strict=True) if old != new]
    assert len(differing) == 2
    assert differing[0].startswith("## ")
    assert differing[1].startswith("| Started / finished |")


def test_git_section_says_what_was_not_committed_or_pushed(factor_sweep: SweepSnapshot) -> None:
    git = GitState("0123456789abcdef", None, True, "feedface" * 8, "origin", None, False)
    report = render(dataclasses.replace(factor_sweep, git=git))
    rows = rows_of(report, "Git")
    assert rows == {
        "Commit": ["`0123456789`"],
        "Branch": ["detached HEAD"],
        "Remote": ["`origin`"],
        "Push": ["No"],
        "Uncommitted changes": ["Yes, sha256 `feedfacefe`"],
    }


def test_notes_group_equal_anomalies_of_all_jobs(factor_sweep: SweepSnapshot) -> None:
    points = tuple(
        dataclasses.replace(p, anomalies=(("log_truncated", "The log breaks off."),)) for p in factor_sweep.points
    )
    report = render(dataclasses.replace(factor_sweep, points=points))
    assert "- **`log_truncated`** all 4 jobs: The log breaks off." in report


def test_timing_says_how_long_a_job_took_outside_its_steps(factor_sweep: SweepSnapshot) -> None:
    steps = {1: {"timing_s/step": 30.0}, 2: {"timing_s/step": 20.0}}
    report = render(with_points(factor_sweep, metrics=steps, started_at=None))
    took = factor_sweep.points[0].attempts[-1]
    assert took.started_at is not None
    assert took.ended_at is not None
    whole = took.ended_at - took.started_at
    rows = rows_of(report, "Timing (step 1)")
    assert [rows[title][0] for title in ("Job (s)", "Outside its steps (s)")] == [f"{whole:,.0f}", f"{whole - 50:,.0f}"]


def test_the_steps_of_earlier_attempts_are_no_part_of_the_job_that_resumed(factor_sweep: SweepSnapshot) -> None:
    steps = {1: {"timing_s/step": 30.0}, 2: {"timing_s/step": 20.0}}
    resumed = with_points(factor_sweep, metrics=steps, resumed_after=1)
    took = resumed.points[0].attempts[-1]
    assert took.started_at is not None
    assert took.ended_at is not None
    rows = rows_of(render(resumed), "Timing (step 1)")
    assert rows["Outside its steps (s)"][0] == f"{took.ended_at - took.started_at - 20:,.0f}"


def test_host_memory_above_the_control_groups_limit_is_marked_and_the_gpus_figure_is_not(
    factor_sweep: SweepSnapshot,
) -> None:
    gib = 1024**3
    honest = {"actor/perf/max_memory_allocated_gb": 91.0, "actor/perf/cpu_memory_used_gb": 767.0}
    changed = with_points(
        factor_sweep,
        metrics={step: {**values, **honest} for step, values in factor_sweep.points[0].metrics.items()},
        anomalies=(("memory_metric_unreliable", "verl reports 767.0 GiB of host memory"),),
        gpu_peak_bytes=100 * gib,
        host_peak_bytes=436 * gib,
        host_limit_bytes=512 * gib,
    )
    report = render(changed)
    row = rows_of(report, "Experiment Results")["infl-excl-perprompt"]
    assert "436.0†" in row
    assert "100.0" in row, "what NVML saw, without a mark"
    assert "† Host memory above what the control group allows is not this job's alone" in report
    assert "`infl-excl-perprompt` 767.0 GiB (its group allows 512.0)" in report
