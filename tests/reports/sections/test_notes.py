"""Notes: every anomaly with its cause and what was done about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import orchestrator.triage.anomalies as anomalies
from reports.report import render
from reports.sections.anomaly_words import WORDS
from reports.snapshot import AttemptSnapshot, GitState, PointSnapshot, SweepSnapshot


def notes(*points: PointSnapshot, git: GitState | None = None) -> str:
    return render(SweepSnapshot("s", points=points, git=git), only={"notes"})


def flagged(name: str, code: str, message: str, *pools: str) -> PointSnapshot:
    tries = tuple(AttemptSnapshot(n, pool) for n, pool in enumerate(pools or ("h200",), start=1))
    return PointSnapshot(name, name, state="succeeded", attempts=tries, anomalies=((code, message),))


def test_every_anomaly_that_triage_knows_has_a_cause_and_a_consequence() -> None:
    source = Path(anomalies.__file__).read_text()
    known = set(re.findall(r'Anomaly\(\s*"(\w+)"', source))
    assert len(known) > 10
    assert known == WORDS.keys()


def test_an_anomaly_is_told_with_cause_and_what_was_done() -> None:
    assert notes(flagged("a", "log_truncated", "the log ends in the middle of line 7"), flagged("b", "x", "y")) == (
        "### Notes\n\n"
        "- **`log_truncated`** `a`: the log ends in the middle of line 7\n"
        "  - Usual cause: the job or its node died while it wrote.\n"
        "  - Done: judged by what is there.\n"
        "- **`x`** `b`: y\n"
    )


def test_points_that_recovered_are_told_with_their_path() -> None:
    report = notes(flagged("a", "oom_recovered", "ran out of GPU memory", "h100", "h200"), flagged("b", "x", "y"))
    assert "Done: run again where there is more, by the retry policy; `a`: `h100` → `h200`." in report


def test_many_messages_of_one_code_are_cut() -> None:
    report = notes(*(flagged(f"p{n}", "throughput_outlier", f"{n} s a step") for n in range(30)))
    assert report.count("s a step") == 10
    assert "and 20 messages more, in `report-points.csv`" in report


@pytest.mark.parametrize(("dirty", "said"), [(True, True), (False, False), (None, False)])
def test_uncommitted_code_is_a_note(dirty: bool | None, said: bool) -> None:
    report = notes(git=GitState("a" * 40, dirty=dirty, diff_sha256="feedface" if dirty else None))
    assert ("the commit alone does not reproduce these figures" in report) is said
