"""The section of key findings as a whole."""

from __future__ import annotations

import pytest

from reports.report import render
from reports.snapshot import SweepSnapshot
from tests.reports.made import crossed, made_point, made_sweep


def test_findings_are_numbered_and_each_names_where_its_figures_stand() -> None:
    points = [
        made_point({"factor": f}, {"step": s, "influence_trace/rows_emitted": 96}) for f, s in ((64, 100), (32, 200))
    ]
    lines = render(made_sweep(points), only={"findings"}).strip().splitlines()
    assert lines[:2] == ["### Key Findings", ""]
    assert lines[2].startswith("1. **`factor` 32 takes 2.0× the `step` of 64**")
    assert lines[2].endswith("From `32/1/metrics.jsonl:1`, `64/1/metrics.jsonl:1`.")
    assert lines[3].startswith("2. **All 2 points emitted 96 rows**")


def test_without_replicates_the_reader_is_warned_of_noise() -> None:
    times = {"step": 100.0}
    once = made_sweep([made_point({"factor": f}, times) for f in (64, 32)])
    seeds = [made_point({"factor": f}, times, replicate={"seed": s}, name=f"{f}-{s}") for f in (64, 32) for s in (0, 1)]
    alone = made_sweep([made_point({"factor": 64}, {"influence_trace/rows_emitted": 96})])
    warned = ["may be noise" in render(sweep, only={"findings"}) for sweep in (once, made_sweep(seeds), alone)]
    assert warned == [True, False, False]


def test_a_sweep_that_shows_nothing_has_no_such_section() -> None:
    assert render(made_sweep([made_point({"factor": 64})]), only={"findings"}) == "\n"
    assert render(SweepSnapshot(name="empty"), only={"findings"}) == "\n"


def test_equal_sweeps_give_equal_findings(factor_sweep: SweepSnapshot) -> None:
    again = SweepSnapshot.from_json(factor_sweep.to_json())
    assert render(factor_sweep, only={"findings"}) == render(again, only={"findings"})


def test_names_from_a_run_stay_text() -> None:
    points = [
        made_point({"scope": scope}, {"step": 100 + 50 * place}, name=f"job {place}")
        for place, scope in enumerate(("a|b", "<b>`x`"))
    ]
    drawn = render(made_sweep(points), only={"findings"})
    assert r"`a\|b`" in drawn
    assert "`` <b>`x` ``" in drawn


@pytest.mark.parametrize(("seeds", "said"), [(3, True), (6, False)])
def test_few_replicates_are_said_to_leave_noise(seeds: int, said: bool) -> None:
    sweep = crossed(
        {"factor": [64, 32], "seed": list(range(seeds))},
        lambda factor, seed: made_point({"factor": factor}, {"step": 6_400 / factor + seed}, replicate={"seed": seed}),
    )
    drawn = render(sweep, only={"findings"})
    assert ("With 3 replicates an interval covers 75% at most: a difference may still be noise." in drawn) is said
    assert ("; bootstrap interval " in drawn) is said
    assert ("95% interval" in drawn) is not said
    assert "Every point ran once" not in drawn
