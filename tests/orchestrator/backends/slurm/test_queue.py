"""squeue's text, as Slurm 22.05 wrote it."""

from __future__ import annotations

import pytest

from orchestrator.backends.slurm.queue import QueueRow, command, parse, timestamp

WIDTHS = (40, 24, 8, 24, 8, 8, 64, 64, 48)


def line(*values: str) -> str:
    return "".join(f"{value:{width}}|" for value, width in zip(values, WIDTHS, strict=True))


def row(state: str, exit_code: str = "0", derived: str = "0", id_: str = "27") -> QueueRow:
    (found,) = parse(line(id_, state, "0", "2026-11-21T09:28:44", exit_code, derived, "dec", "orch:x1", "None"))
    return found


def test_a_line_is_read_field_by_field():
    text = line("18744_1", "PENDING", "1", "2026-11-21T09:36:06", "0", "0", "s-p-1", "t0k3n", "BeginTime")
    expected = QueueRow("18744_1", "PENDING", 1, timestamp("2026-11-21T09:36:06"), 0, "s-p-1", "t0k3n", "BeginTime")
    assert parse(text) == [expected]


@pytest.mark.parametrize(
    ("state", "exit_code", "derived", "says", "code"),
    [
        ("FAILED", "768", "0", "FAILED", 3),
        ("FAILED", "11", "0", "FAILED", None),
        ("OUT_OF_MEMORY", "253", "0", "OUT_OF_MEMORY", None),
        ("FAILED", "256", "253", "OUT_OF_MEMORY", 1),
        ("COMPLETED", "0", "253", "COMPLETED", 0),
        ("FAILED", "3:0", "0:0", "FAILED", 3),
        ("FAILED", "1:0", "0:125", "OUT_OF_MEMORY", 1),
    ],
    ids=["exit 3", "sigsegv", "oom", "oom in a step", "oom in a step of a success", "newer text", "newer text, oom"],
)
def test_exit_codes_and_kills_for_memory(state, exit_code, derived, says, code):
    assert (row(state, exit_code, derived).state, row(state, exit_code, derived).exit_code) == (says, code)


def test_what_is_no_row_is_passed_over():
    warning = "squeue: warning: something | with | bars"
    text = f"{warning}\n\n{line('1', 'RUNNING', '0', 'N/A', '0', '0', 'n', '(null)', 'None')}\nslurm_load_jobs error"
    (found,) = parse(text)
    assert (found.id, found.submitted_at, found.comment) == ("1", None, "")


def test_one_call_asks_for_all_own_jobs_ended_ones_and_single_tasks_included():
    asked = command()
    assert {"--me", "--array", "--noheader"} <= set(asked)
    assert asked[asked.index("--states") + 1] == "all"
    assert "--name" not in asked
    assert command(name="job-a1")[-4:-2] == ["--name", "job-a1"]
