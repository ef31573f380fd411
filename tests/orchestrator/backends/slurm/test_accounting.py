"""sacct's text, as Slurm 22.05 wrote it (columns: id, name, partition, state, exit, derived exit, submit, comment)."""

from __future__ import annotations

import pytest

from orchestrator.backends.slurm.accounting import command, parse

SUBMIT = "2026-11-21T09:28:44"
BATCH = f"9.batch|batch||FAILED|1:0||{SUBMIT}|\n"
OOM_IN_STEP = f"9|j|h100|FAILED|1:0|0:125|{SUBMIT}|c\n{BATCH}9.0|python3||OUT_OF_MEMORY|0:125||{SUBMIT}|\n"
OOM_IN_STEP_ALONE = f"9|j|h100|FAILED|1:0|0:0|{SUBMIT}|c\n{BATCH}9.0|python3||OUT_OF_MEMORY|0:125||{SUBMIT}|\n"


@pytest.mark.parametrize(
    ("text", "state", "code"),
    [
        (f"1|j|h100|COMPLETED|0:0|0:0|{SUBMIT}|", "COMPLETED", 0),
        (f"1|j|h100|FAILED|3:0|0:0|{SUBMIT}|", "FAILED", 3),
        (f"1|j|h100|FAILED|0:11|0:0|{SUBMIT}|", "FAILED", None),
        (f"1|j|h100|OUT_OF_MEMORY|0:125|0:0|{SUBMIT}|", "OUT_OF_MEMORY", None),
        (f"1|j|h100|CANCELLED by 1000|0:0|0:0|{SUBMIT}|", "CANCELLED", 0),
        (OOM_IN_STEP, "OUT_OF_MEMORY", 1),
        (OOM_IN_STEP_ALONE, "OUT_OF_MEMORY", 1),
        (f"1|j|h100|REQUEUED|0:125|0:0|{SUBMIT}|", "OUT_OF_MEMORY", None),
    ],
    ids=["ok", "exit 3", "sigsegv", "oom", "cancelled", "oom by srun", "oom of a step", "oom, then requeued"],
)
def test_how_a_job_ended(text, state, code):
    (row,) = parse(text)
    assert (row.state, row.exit_code) == (state, code)


def test_every_start_of_a_requeued_job_has_its_row_in_order():
    text = (
        f"63|j|spot|PREEMPTED|0:0|0:0|{SUBMIT}|c\n63.batch|batch||COMPLETED|0:0||{SUBMIT}|\n"
        "63|j|spot|PENDING|0:0|0:0|2026-11-21T09:36:06|c\n"
    )
    assert [(row.id, row.state) for row in parse(text)] == [("63", "PREEMPTED"), ("63", "PENDING")]


def test_a_kill_for_memory_counts_for_the_start_that_it_happened_in():
    text = (
        f"9|j|h100|FAILED|1:0|0:0|{SUBMIT}|\n9.0|p||OUT_OF_MEMORY|0:125||{SUBMIT}|\n9|j|h100|FAILED|1:0|0:0|{SUBMIT}|\n"
    )
    assert [row.state for row in parse(text)] == ["OUT_OF_MEMORY", "FAILED"]


def test_a_stub_is_told_from_a_row():
    stub, full = parse(f"9|allocation||FAILED|1:0|0:125|{SUBMIT}|c\n10|j|h100|FAILED|1:0|0:0|{SUBMIT}|c\n")
    assert stub.is_stub
    assert not full.is_stub


def test_lines_that_are_no_rows_are_passed_over():
    assert parse("sacct: error: slurm_persist_conn_open: something\n\n") == []


def test_ids_are_asked_for_in_one_list_and_all_starts_of_them():
    asked = command(ids=["1", "2"])
    assert asked[asked.index("--jobs") + 1] == "1,2"
    assert {"--duplicates", "--parsable2"} <= set(asked)
