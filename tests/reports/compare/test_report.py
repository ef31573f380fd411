"""Two sweeps side by side: figures with differences and intervals, and everything that could not be compared."""

from __future__ import annotations

import csv
import dataclasses
import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given

from reports.compare.report import MOST_SETTINGS, compare, render, to_csv
from reports.drawing import TemplateProblem
from reports.resampling import bootstrap_interval
from reports.snapshot import AttemptSnapshot, ChangesSnapshot, FileChange, NpzSnapshot, PointSnapshot, SweepSnapshot
from tests.reports.reading import assert_github_reads_what_was_meant, rows_below
from tests.reports.test_markdown import hostile

Measured = Callable[[int, int], float]
"""(factor, seed) -> seconds of a step."""


def sweep(
    name: str, seconds: Measured, factors: tuple[int, ...] = (64, 512), seeds: tuple[int, ...] = (0,)
) -> SweepSnapshot:
    points = tuple(
        PointSnapshot(
            id=f"{factor}-{seed}",
            name=f"f{factor}-s{seed}",
            parameters={"factor": factor, "seed": seed},
            replicate={"seed": seed},
            state="succeeded",
            attempts=(AttemptSnapshot(1, verdict="completed"),),
            metrics={step: {"timing_s/step": seconds(factor, seed) + step} for step in (1, 2)},
            npz=(NpzSnapshot("a.npz", 1, valid=4, mean=0.0, std=0.1),),
        )
        for factor in factors
        for seed in seeds
    )
    return SweepSnapshot(name, axes=("factor", "seed"), points=points)


def test_figures_are_means_over_common_steps_with_difference_and_ratio() -> None:
    a, b = sweep("a", lambda factor, _seed: 6400 / factor), sweep("b", lambda factor, _seed: 12800 / factor)
    report = render(compare(a, b))
    rows = rows_below(report, "`step` (s)")
    # means over steps 1 and 2: 100 + 1.5 and 200 + 1.5; 12.5 + 1.5 and 25 + 1.5
    assert rows[0] == {"`factor`": "`64`", "A": "102", "B": "202", "B − A": "100", "B / A": "1.985×"}
    assert rows[1] == {"`factor`": "`512`", "A": "14.0", "B": "26.5", "B − A": "12.5", "B / A": "1.893×"}
    assert "nothing can be concluded about noise" in report
    assert "Score std" in report


def test_replicates_give_each_difference_its_interval() -> None:
    noise = random.Random(1)
    table = {(f, s): 100 + noise.gauss(0, 3) for f in (64, 512) for s in range(6)}
    a = sweep("a", lambda f, s: table[f, s], seeds=tuple(range(6)))
    b = sweep("b", lambda f, s: table[f, s] + 5 + s, seeds=tuple(range(6)))
    row = rows_below(render(compare(a, b)), "`step` (s)")[0]
    expected = bootstrap_interval([5.0 + s for s in range(6)])
    assert expected is not None
    assert row["Replicates"] == "6"
    low, high = row["95% interval"].split(" – ")
    assert float(low) == pytest.approx(expected.low, abs=0.051)
    assert float(high) == pytest.approx(expected.high, abs=0.051)
    assert float(row["B − A"]) == pytest.approx(7.5, abs=0.051)


def test_the_summary_gives_the_mean_ratio_with_its_interval_over_replicates() -> None:
    a = sweep("a", lambda _f, s: 100 + s - 1.5, seeds=(0, 1, 2))
    b = sweep("b", lambda _f, s: 2 * (100 + s) - 1.5, seeds=(0, 1, 2))
    (row,) = [row for row in rows_below(render(compare(a, b)), "Summary") if row["Figure"] == "`step` (s)"]
    assert row["Median B / A"] == "2.000×"
    assert row["Mean over replicates"] == "2.000× (2.000× – 2.000×)"


def test_the_setting_with_fewest_replicates_says_how_far_intervals_can_be_trusted() -> None:
    a, b = (sweep(name, lambda f, s: 100 + f + s, seeds=tuple(range(6))) for name in "ab")
    assert "they cover" not in render(compare(a, b))
    lacking = dataclasses.replace(b, points=b.points[:9])  # the second factor has three seeds
    assert "With 3 replicates they cover 75% at most" in render(compare(a, lacking))


def test_what_is_not_compared_is_said_with_the_reason() -> None:
    a, b = sweep("a", lambda *_: 1.0, (64, 128, 512)), sweep("b", lambda *_: 1.0, (64, 512, 1024))
    failed = dataclasses.replace(b.points[1], state="failed", verdict="gpu_oom")
    report = render(compare(a, dataclasses.replace(b, points=(b.points[0], failed, b.points[2]))))
    body = report.split("### Not compared")[1]
    assert "- only in A: `f128-s0`" in body
    assert "- only in B: `f1024-s0`" in body
    assert "- failed in B (`gpu_oom`): `f512-s0`" in body
    assert rows_below(report, "Ends that differ") == [{"Job": "`f512-s0`", "A": "succeeded", "B": "failed `gpu_oom`"}]


def test_what_the_sweeps_were_asked_differently_is_said() -> None:
    a = dataclasses.replace(sweep("a", lambda *_: 1.0), overrides=("x=1", "y=2"))
    b = dataclasses.replace(sweep("b", lambda *_: 1.0), overrides=("x=1", "y=3"), environment={"torch": "2.13"})
    report = render(compare(a, b))
    assert "Only in A: `y=2`." in report
    assert "Only in B: `y=3`." in report
    assert "| torch |  | `2.13` |" in report


def test_the_code_between_the_two_is_shown() -> None:
    changes = ChangesSnapshot("a" * 40, "b" * 40, files=(FileChange("solve.py", "modified", 3, 1, ("Faster",)),))
    report = render(compare(sweep("a", lambda *_: 1.0), sweep("b", lambda *_: 1.0), changes))
    assert rows_below(report, "Changes") == [
        {"Path": "`solve.py`", "Change": "modified", "Lines": "+3 −1", "Commits": "Faster"}
    ]


def test_many_settings_show_what_changed_most_and_the_csv_has_all() -> None:
    factors = tuple(range(1, 101))
    a, b = sweep("a", lambda *_: 8.5, factors), sweep("b", lambda f, _s: 8.5 + f, factors)
    compared = compare(a, b)
    rows = rows_below(render(compared), "`step` (s)")
    assert len(rows) == MOST_SETTINGS
    assert [row["`factor`"] for row in (rows[0], rows[-1])] == ["`1`", "`100`"]
    lines = list(csv.DictReader(io.StringIO(to_csv(compared))))
    seconds = [line for line in lines if line["figure"] == "step (s)"]
    assert len(seconds) == 100
    assert (seconds[41]["factor"], float(seconds[41]["difference"])) == ("42", 42.0)


def test_sweeps_with_nothing_in_common_are_told_apart_and_no_more() -> None:
    report = render(compare(sweep("a", lambda *_: 1.0, (1,)), SweepSnapshot("b")))
    assert "0 points of both sweeps" in report
    assert "### Summary" not in report


@given(name=hostile, axis=hostile, value=hostile, words=hostile)
def test_any_two_sweeps_are_compared_in_valid_markdown(name: str, axis: str, value: str, words: str) -> None:
    points = (
        PointSnapshot("p", name, {axis: value, "n": 1}, state="succeeded", metrics={1: {"timing_s/step": 1.0}}),
        PointSnapshot("q", value, {axis: words, "n": 2}, state="failed", verdict=name, anomalies=((words, value),)),
    )
    a = SweepSnapshot(name, words, axes=(axis, "n"), points=points, overrides=(words,), environment={words: name})
    b = dataclasses.replace(a, name=value, overrides=(name,), environment={words: value}, points=points[:1] + points)
    changes = ChangesSnapshot(words, name, files=(FileChange(value, "modified", 1, 1, (words,)),))
    for compared in (compare(a, a, changes), compare(a, b)):
        report = render(compared)
        assert_github_reads_what_was_meant(report)
        assert report == render(compared)
        assert list(csv.reader(io.StringIO(to_csv(compared))))


def test_ones_own_template_draws_it(tmp_path: Path) -> None:
    (tmp_path / "compare.md.j2").write_text("{{ a.name }}/{{ b.name }}: {{ settings }}")
    compared = compare(sweep("a", lambda *_: 1.0), sweep("b", lambda *_: 1.0))
    assert render(compared, [tmp_path]) == "a/b: 2\n"
    (tmp_path / "compair.md.j2").write_text("")
    with pytest.raises(TemplateProblem, match=r"did you mean compare\.md\.j2"):
        render(compared, [tmp_path])
