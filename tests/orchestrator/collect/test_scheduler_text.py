"""Saved output of `runai describe job` and `sacct`."""

from __future__ import annotations

import dataclasses

import pytest

from orchestrator.collect.scheduler_text import SchedulerFacts, parse_runai_describe, parse_sacct

DESCRIBE = """\
Name: infl-excl-allsel-f64-0222
Namespace: runai-research
Type: Training
Status: {status}
Duration: 34m
GPUs: 8.00

Pods:
POD                            STATUS   TYPE      AGE  NODE
infl-excl-allsel-f64-0222-0-0  {status}    TRAINING  2h   dgx-7/10.0.0.7
"""
HEADER = "JobID|JobName|Partition|State|ExitCode|DerivedExitCode"


@pytest.mark.parametrize(
    ("status", "facts"),
    [
        ("Succeeded", SchedulerFacts(False, "COMPLETED", 0)),
        ("Error", SchedulerFacts(False, "FAILED")),
        ("Failed", SchedulerFacts(False, "FAILED")),
        ("Running", SchedulerFacts(True, "RUNNING")),
        ("Pending", SchedulerFacts(True, "PENDING")),
        ("Preempted", SchedulerFacts(False, "PREEMPTED")),
        ("OOMKilled", SchedulerFacts(False, "OUT_OF_MEMORY")),
        ("TimedOut", SchedulerFacts(False, "TIMEOUT")),
        ("Confused", SchedulerFacts(False, "CONFUSED")),
    ],
)
def test_runais_status_becomes_slurms_word(status: str, facts: SchedulerFacts) -> None:
    assert parse_runai_describe(DESCRIBE.format(status=status)) == facts


def test_the_second_generations_phase_counts_and_completed_at_does_not() -> None:
    text = "Completed At: 2026-02-22\nPhase: Failed\nContainers:\n  Reason: OOMKilled\n  Exit Code: 137\n"
    assert parse_runai_describe(text) == SchedulerFacts(False, "OUT_OF_MEMORY", 137)


@pytest.mark.parametrize("key", ["Node Pool", "Node Pools", "Current Node Pool", "NodePool"])
def test_the_node_pool_is_read_whatever_it_is_called(key: str) -> None:
    assert parse_runai_describe(f"Status: Succeeded\n{key}: dgx-h200\n").pool == "dgx-h200"


@pytest.mark.parametrize(
    ("rows", "facts"),
    [
        (["9|sweep|h100|COMPLETED|0:0|0:0"], SchedulerFacts(False, "COMPLETED", 0)),
        (["9|sweep|h100|FAILED|3:0|0:0", "9.batch|batch||FAILED|3:0|"], SchedulerFacts(False, "FAILED", 3)),
        (["7|segv|h100|FAILED|0:11|0:0"], SchedulerFacts(False, "FAILED", 0, 11)),
        (["9|x|h100|OUT_OF_MEMORY|0:125|0:0"], SchedulerFacts(False, "OUT_OF_MEMORY", 0)),
        (
            ["9|x|h100|FAILED|1:0|0:125", "9.batch|batch||FAILED|1:0|", "9.0|python3||OUT_OF_MEMORY|0:125|"],
            SchedulerFacts(False, "OUT_OF_MEMORY", 1),
        ),
        (["47|x|h100|CANCELLED by 0|0:0|0:0", "47.batch|batch||COMPLETED|0:0|"], SchedulerFacts(False, "CANCELLED", 0)),
        (["62|x|h100|NODE_FAIL|0:0|0:0", "62|x|h100|PENDING|0:0|0:0"], SchedulerFacts(True, "PENDING", 0)),
        (["46|x|h100|RUNNING|0:0|0:0"], SchedulerFacts(True, "RUNNING", 0)),
        ([], SchedulerFacts()),
    ],
)
def test_sacct_with_bars(rows: list[str], facts: SchedulerFacts) -> None:
    found = parse_sacct("\n".join(["$ sacct -P -j 9", HEADER, *rows, ""]))
    assert found == dataclasses.replace(facts, pool="h100" if rows else None)


def test_sacct_in_columns() -> None:
    text = (
        "JobID           JobName  Partition      State ExitCode \n"
        "------------ ---------- ---------- ---------- -------- \n"
        "65           preempt_c+   spotkill  PREEMPTED      0:0 \n"
        "65.batch          batch             PREEMPTED      0:0 \n"
    )
    assert parse_sacct(text) == SchedulerFacts(False, "PREEMPTED", 0, pool="spotkill")


@pytest.mark.parametrize(
    "text", ["", "\n\n", "JobID State", "JobID State\nfoo bar", "Status", "\x00|\x00\nJobID|State\n|"]
)
def test_other_texts_say_nothing(text: str) -> None:
    assert parse_sacct(text).reason is None
    assert parse_runai_describe(text) == SchedulerFacts()
