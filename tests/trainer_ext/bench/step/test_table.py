"""A step report as markdown."""

from __future__ import annotations

from tests.trainer_ext.bench.step.values import INLINE, OFF, SEPARATE, make_report, make_row
from trainer_ext.bench.step.table import percent_signed, render


def cells(text: str, case: str, table: int) -> list[str]:
    """A case's line in one of the tables."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {case} ")]
    return [cell.strip() for cell in lines[table].strip("|").split("|")]


def test_what_the_trace_adds_is_against_the_step_without_it() -> None:
    slow = {"update_actor": 11.0, "influence": 4.0, "pop_rows": 1.0}
    text = render(make_report(make_row(OFF), make_row(INLINE), make_row(SEPARATE, seconds=slow)))
    assert cells(text, "off", 0)[5:9] == ["10.0", "-", "-", "-"]
    assert cells(text, INLINE.name, 0)[4:9] == ["0.500", "10.5", "+5.0%", "10% (yes)", "4.8%"]
    assert cells(text, SEPARATE.name, 0)[4:9] == ["4.00", "15.0", "+50%", "-", "27%"]


def test_the_first_step_stands_beside_the_one_that_counts() -> None:
    first = make_row(INLINE, 1, seconds={"update_actor": 30.0, "influence": 36.0})
    assert cells(render(make_report(first, make_row(INLINE))), INLINE.name, 0)[9] == "66.0"


def test_a_goal_that_is_missed_says_so() -> None:
    slow = make_row(INLINE, seconds={"update_actor": 10.5, "influence": 1.0})
    assert cells(render(make_report(make_row(OFF), slow)), INLINE.name, 0)[7] == "10% (no)"


def test_phases_and_memory_leave_a_dash_where_nothing_was_measured() -> None:
    text = render(make_report(make_row(OFF), make_row(INLINE, capture="inline: why", agreement=3e-4)))
    assert cells(text, INLINE.name, 1)[1:] == ["-", "-", "-", "0.250", "-", "-", "0.500"]
    assert cells(text, INLINE.name, 2)[1:] == ["90.5", "-", "4.25", "-", "inline: why", "3.00e-04"]
    assert cells(text, "off", 1)[1:] == ["90.5", "-", "4.25", "-", "-", "-"], "no phases without a trace"


def test_what_was_left_out_is_listed() -> None:
    text = render(make_report(make_row(OFF), failures=("stopped before x",)))
    assert text.endswith(
        f"Left out:\n- stopped before x\n- {INLINE.name}: not measured\n- {SEPARATE.name}: not measured\n"
    )


def test_the_heading_says_what_ran_where() -> None:
    text = render(make_report(make_row(OFF), start_up_s=41.0))
    assert "1 rank(s), each with 2 prompts x 4 responses of 3 to 9 tokens: 1,000 response tokens a rank" in text
    assert "1 x NVIDIA H200, torch 2.11.0, 2026-01-02, commit abc; 41.0 s from the start to the first step" in text


def test_shares_have_a_sign() -> None:
    assert [percent_signed(value) for value in (0.042, -0.003, 1.5)] == ["+4.2%", "-0.3%", "+150%"]
