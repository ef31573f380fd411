"""Tables hold any text: whatever a name contains, each row has the same number of cells and stays on its line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reports.markdown import Column, code, key_values, literal, one_line, table, text
from reports.report import render
from reports.snapshot import (
    AttemptSnapshot,
    ChangesSnapshot,
    CommitSnapshot,
    FileChange,
    GitState,
    HardwareSnapshot,
    ModuleDims,
    NpzSnapshot,
    PointSnapshot,
    SweepSnapshot,
)
from tests.reports.reading import assert_github_reads_what_was_meant

hostile = st.text(st.sampled_from("a|\\`\n\r\t <>*_#\x00\x1c\x85\u2028é漢💥\ud800")) | st.text()


def cells(row: str) -> int:
    """Cells of a table row for a parser that takes a pipe after any backslash as text."""
    return len(re.findall(r"(?<!\\)\|", row)) - 1


def strict_cells(row: str) -> int:
    """Cells for a parser in which two backslashes before a pipe leave the pipe bare."""
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) - 1


def assert_tables_are_valid(report: str) -> None:
    for block in re.split(r"\n\n+", report.strip("\n")):
        lines = block.split("\n")
        if not lines[0].startswith("| "):
            continue
        assert len(lines) >= 3
        assert re.fullmatch(r"\|( ---:? \|)+", lines[1])
        assert {cells(line) for line in lines} == {strict_cells(line) for line in lines} == {cells(lines[1])}


@given(st.lists(st.tuples(hostile, hostile), min_size=1))
def test_any_cell_stays_in_its_cell(rows: list[tuple[str, str]]) -> None:
    columns = [
        Column("n", [str(n) for n in range(len(rows))], numeric=True),
        Column("text", [text(row[0]) for row in rows]),
        Column("code", [code(row[1]) for row in rows]),
    ]
    drawn = table(columns)
    assert_github_reads_what_was_meant(drawn)
    assert len(drawn.splitlines()) == len(rows) + 2
    assert_tables_are_valid(drawn)
    drawn.encode()


@given(
    name=hostile,
    axis=hostile,
    value=hostile,
    message=hostile,
    metrics=st.dictionaries(
        st.integers(0, 9),
        st.dictionaries(
            st.sampled_from(["actor/grad_norm", "influence_trace/rows_emitted", "timing_s/update_actor", "actor/x"]),
            st.floats() | st.floats(0, 1e7),
        ),
        max_size=5,
    ),
    scores=st.tuples(*[st.none() | st.floats()] * 4),
    times=st.tuples(*[st.none() | st.floats(0, 4e9)] * 2),
    state=st.sampled_from(["succeeded", "failed", "active", "skipped"]),
)
def test_any_snapshot_renders_valid_tables(name, axis, value, message, metrics, scores, times, state) -> None:  # type: ignore[no-untyped-def]
    point = PointSnapshot(
        id="p",
        name=name,
        parameters={axis: value},
        state=state,
        verdict=None if state == "active" else message,
        reason=message,
        anomalies=((message, name), ("memory_metric_unreliable", message)),
        attempts=(
            AttemptSnapshot(
                1, value, "judged", "gpu_oom", reason=message, evidence=(f"a.log:1: {name}",), folder=value
            ),
            AttemptSnapshot(2, name, started_at=times[0], ended_at=times[1], moved=message, node=value),
        ),
        metrics=metrics,
        npz=(NpzSnapshot(name, 1, None, 1, 5, *scores), NpzSnapshot(name, 2, message)),
        evidence=(message, name),
        folder=message,
        step_lines={1: f"{name}:1", 2: f"{message}:2"},
        errors=(f"{name}:3: CUDA {message}",),
        log_lines=3,
        dims=(ModuleDims(value, 2, 3, routes=(message,)),),
        hardware=HardwareSnapshot(message, 8, value, name, message),
    )
    other = PointSnapshot(
        "q", "other", {axis: 1}, state="succeeded", npz=(NpzSnapshot("b.npz", 1, None, 1, 5, *scores),)
    )
    changed = FileChange(value, "modified", 1, 2, (message, name))
    snapshot = SweepSnapshot(
        name,
        message,
        *times,
        state,
        value,
        message,
        axes=(axis,),
        points=(point, other),
        expected_steps=2,
        expected_npz=2,
        git=GitState(value, name, True, message, name, message, False),
        environment={message: name},
        changes=ChangesSnapshot(value, name, message, (CommitSnapshot(name, message),), (changed,)),
        backend=name,
    )
    report = render(snapshot)
    assert_tables_are_valid(report)
    assert_github_reads_what_was_meant(report)
    assert report == render(snapshot)
    report.encode()


@pytest.mark.parametrize(
    ("words", "span"),
    [
        ("plain", "`plain`"),
        ("a|b", r"`a\|b`"),
        ("tick ` inside", "``tick ` inside``"),
        ("`edge", "`` `edge ``"),
        ("two\nlines", "`two lines`"),
        ("back\\|slash", "back&#92;&#124;slash"),
        ("  \n", ""),
    ],
)
def test_code_spans(words: str, span: str) -> None:
    assert code(words) == span


def test_html_in_text_becomes_visible() -> None:
    assert text("<class 'int'> is not 3 < 4") == r"\<class 'int'> is not 3 < 4"


def test_empty_columns_and_rows_are_left_out() -> None:
    assert table([Column("A", ["1", "2"]), Column("B", ["", ""])]) == "| A |\n| --- |\n| 1 |\n| 2 |"
    assert table([Column("A", [])]) == ""
    assert key_values(("K", "V"), [("a", ""), ("b", "1")]) == "| K | V |\n| --- | --- |\n| b | 1 |"


def test_columns_of_unequal_length_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        table([Column("A", ["1"]), Column("B", ["1", "2"])])


def test_what_a_program_wrote_is_neither_emphasis_nor_a_link() -> None:
    assert literal("a*b* [x](y) `c` <b> | ![z]") == r"a\*b\* \[x\](y) \`c\` \<b\> &#124; \!\[z\]"
    assert literal("TypeError: __init__ of max_memory") == r"TypeError: \_\_init\_\_ of max_memory"


@given(hostile | st.text(st.sampled_from("_*~`[]()!&#;\\|<>a ")))
def test_a_reader_sees_it_as_it_was_written(words: str) -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(table([Column("A", [literal(f"x {words} x")])]))
    (cell,) = [tokens[place + 1] for place, token in enumerate(tokens) if token.type == "td_open"]
    assert "".join(child.content for child in cell.children or ()) == one_line(f"x {words} x")


def test_outside_of_a_table_a_pipe_in_code_needs_no_backslash() -> None:
    assert code("KeyError: 'a|b'", in_table=False) == "`KeyError: 'a|b'`"
    assert code("KeyError: 'a|b'") == r"`KeyError: 'a\|b'`"
