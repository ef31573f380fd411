"""metrics.jsonl while it grows, torn, rewritten, and full of things that are no rows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.collect.metrics import MetricsRow, parse_rows, read_all, read_new


def row(step: int, **data: Any) -> bytes:
    return json.dumps({"step": step, "data": data}).encode() + b"\n"


def test_reading_goes_on_where_it_stopped_and_waits_for_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first, second = row(1, loss=0.5), row(2, loss=0.25)
    path.write_bytes(first + second[:9])
    rows, offset = read_new(path)
    assert rows == [MetricsRow(1, {"loss": 0.5})]
    assert read_new(path, offset) == ([], offset)
    path.write_bytes(first + second)
    assert read_new(path, offset) == ([MetricsRow(2, {"loss": 0.25})], len(first + second))


def test_a_file_that_was_rewritten_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(row(1, loss=0.5) + row(2, loss=0.5))
    _, offset = read_new(path)
    for rewritten in (row(1, loss=7), row(10, loss=7.125, other=1) * 9):
        path.write_bytes(rewritten)
        rows, _ = read_new(path, offset)
        assert rows[0].data["loss"] > 6


def test_a_file_that_does_not_exist_has_no_rows(tmp_path: Path) -> None:
    assert read_new(tmp_path / "none", 10) == ([], 0)
    assert read_all(tmp_path / "none") == ({}, {})


def test_later_rows_of_a_step_win_metric_by_metric(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(row(2, a=1) + row(1, a=1, b=2) + row(1, a=3))
    found = read_all(path)
    assert found.metrics == {1: {"a": 3.0, "b": 2.0}, 2: {"a": 1.0}}
    assert list(found.metrics) == [1, 2]
    assert found.lines == {1: 3, 2: 1}, "where a step's last row stands"


def test_the_line_of_a_step_counts_lines_that_are_no_rows_and_none_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"junk\n\n" + row(1, a=1) + row(2, a=1).rstrip(b"\n"))
    assert read_all(path) == ({1: {"a": 1.0}}, {1: 3})


def test_null_is_nan_and_what_is_no_number_is_left_out() -> None:
    (found,) = parse_rows(row(1, grad_norm=None, ok=True, name="x", nested={"a": 1}, huge=10**400))
    assert math.isnan(found.data.pop("grad_norm"))
    assert found.data == {"ok": 1.0, "huge": math.inf}


def test_lines_that_are_no_rows_are_left_out() -> None:
    junk = (
        b'{"step": 1}\n[1]\n3\n{"step": "x", "data": {}}\n{"step": true, "data": {}}\n{"step": 1, "da\n\xff\xfe\n'
        + b"[" * 99999
    )
    assert parse_rows(junk + b"\n" + row(3, a=1)) == [MetricsRow(3, {"a": 1.0})]


@given(st.binary(max_size=200))
def test_any_bytes_are_read(data: bytes) -> None:
    parse_rows(data)
